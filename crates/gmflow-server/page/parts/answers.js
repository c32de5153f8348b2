// Answers of a job about its steps, asked for a few at a time and kept.
import { get } from "../lib/api.js";

const AT_ONCE = 4;

/** Keeps answers by path, and asks for those that are missing. */
export class Answers {
  constructor() {
    this.kept = new Map();
  }

  one(path) {
    if (!this.kept.has(path)) {
      const asked = get(path);
      this.kept.set(path, asked);
      asked.catch(() => this.kept.delete(path));
    }
    return this.kept.get(path);
  }

  /**
   * Asks for all of `paths`; `each(answers)` is called as they come, with `undefined` where one is missing. Stops when
   * `isOld()`.
   */
  async all(paths, each, isOld) {
    const answers = new Array(paths.length);
    let next = 0;
    const worker = async () => {
      while (next < paths.length && !isOld()) {
        const index = next;
        next += 1;
        answers[index] = await this.one(paths[index]).catch(() => undefined);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    if (!isOld()) each(answers);
  }
}
