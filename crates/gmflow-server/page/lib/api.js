// Requests to the server, and its errors.

/** An answer that is no success. */
export class ApiError extends Error {
  constructor(status, body, retryAfter) {
    const error = body?.error ?? {};
    super(error.message ?? `the server answered ${status}`);
    Object.assign(this, { status, code: error.code ?? "", field: error.field ?? error.param ?? null });
    Object.assign(this, { expected: error.expected, got: error.got, retryAfter });
  }
}

/** An error that the server did not send: it cannot be reached. */
function unreachable() {
  return new ApiError(0, {
    error: { message: "The server does not answer. Is gmflow serve still running?", code: "unreachable" },
  });
}

/** Sends a request; the answer is a success, or an [`ApiError`] is thrown. */
export async function send(method, path, { body, signal, accept, keepalive } = {}) {
  const headers = {};
  if (body !== undefined) headers["content-type"] = "application/json";
  if (accept) headers.accept = accept;
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers,
      signal,
      keepalive,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    throw error.name === "AbortError" ? error : unreachable();
  }
  if (answer.ok) return answer;
  const text = await answer.json().catch(() => null);
  const error = new ApiError(answer.status, text, Number(answer.headers.get("retry-after")) || undefined);
  if (error.status === 401) window.dispatchEvent(new CustomEvent("gmflow-key", { detail: error }));
  throw error;
}

/** The JSON of a path. */
export async function get(path, options) {
  return (await send("GET", path, options)).json();
}

/** The JSON that a path answers to `body`. */
export async function post(path, body, options) {
  return (await send("POST", path, { ...options, body })).json();
}

/** What went wrong, in a sentence for the user, without the field's name where it stands beside the field. */
export function sentence(error) {
  if (!(error instanceof ApiError)) return error?.message ?? String(error);
  switch (error.code) {
    case "queue_full":
      return `The server has enough to do. It takes new work in about ${error.retryAfter ?? 1} s.`;
    case "too_many_streams":
      return "Too many pages follow this server. Close one, or try again in a moment.";
    case "loading":
      return "The model is being loaded. Try again in a moment.";
    case "draining":
      return "The server is shutting down and takes no new work.";
    case "not_found":
      return "The server does not have this any more. Draw again.";
    default:
      return error.expected ? `Expected ${error.expected}, got ${error.got}.` : capital(error.message);
  }
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

const COOKIE = "gmflow_key";

/** Sets the key that requests carry from now on: as a cookie, so that pictures and streams carry it too. */
export function setKey(key) {
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `${COOKIE}=${key}; Path=/; SameSite=Strict; Max-Age=31536000${secure}`;
}

/** Whether a key was set before. */
export const hasKey = () => document.cookie.split("; ").some((part) => part.startsWith(`${COOKIE}=`));
