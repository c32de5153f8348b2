// The models of the server.
import { get } from "./api.js";

let known = null;

/**
 * The models of the server. They are asked for once, again with `fresh`, and again where none has the id that is
 * wanted.
 */
export async function listModels({ wanted, fresh = false } = {}) {
  if (!known || fresh || (wanted && !findModel(await known.catch(() => []), wanted))) {
    known = get("/v1/models").then(({ data }) => data.map(complete));
    known.catch(() => (known = null));
  }
  return known;
}

/** A model whose classes have no names calls them by their numbers. */
function complete(model) {
  return {
    ...model,
    classes: (model.classes ?? []).map(({ index, name }) => ({ index, name: name ?? String(index) })),
  };
}

/** The model with this id. An older checkpoint of a run, `run:ID@step-00001000`, is what the newest one is. */
export function findModel(models, id) {
  const found = models.find((model) => model.id === id);
  if (found || !id?.startsWith("run:")) return found;
  const newest = models.find((model) => model.id === id.split("@")[0]);
  return newest && { ...newest, id, state: "unloaded", default: false };
}

/** The models to choose from, with the one that is chosen now. */
export const choices = (models, model) => (models.some(({ id }) => id === model.id) ? models : [model, ...models]);
