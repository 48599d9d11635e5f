// One video: uploaded, followed while frames are processed, and cancelled.

/** An error with the sentence of the program; status 0: no answer. */
export class RequestError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Send a request to the program and return its answer. Throws RequestError. */
export async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(`api/${path}`, options);
  } catch {
    throw new RequestError(0, "The program does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  throw new RequestError(answer.status, body.detail || `The program answered with status ${answer.status}.`);
}

/**
 * Send a video and follow its states.
 * @param {{file: File, state: object, id: ?string}} item is updated
 * @param {string} query thresholds and step
 * @param {() => void} changed is called after every change
 */
export async function runVideo(item, query, changed) {
  item.state = { status: "sending", frames: 0, total: null, objects: 0 };
  item.query = query;
  item.routing = {};
  item.sending = new AbortController();
  changed();
  try {
    const options = { method: "POST", body: item.file, signal: item.sending.signal };
    item.id = (await (await request(`videos?${query}`, options)).json()).id;
  } catch (problem) {
    const cancelled = item.sending.signal.aborted;
    item.state = { status: cancelled ? "cancelled" : "failed", detail: problem.message };
    changed();
    return;
  }
  if (item.sending.signal.aborted) return cancelVideo(item);
  item.state.status = "running";
  item.events = new EventSource(`api/videos/${item.id}/events`);
  item.events.onmessage = (event) => {
    item.state = JSON.parse(event.data);
    item.routing = item.state.routing || {};
    if (item.state.status !== "running") item.events.close();
    changed();
  };
  item.events.onerror = () => {
    if (item.state.status !== "running") return;
    item.events.close(); // the program cancels a video without listeners, so there is nothing to reconnect to
    item.state = { status: "failed", detail: "The connection to the program was lost." };
    changed();
  };
}

/** Stop the processing of a video, and delete the files that the program has of it. */
export function cancelVideo(item) {
  item.sending?.abort();
  item.events?.close();
  if (["running", "sending"].includes(item.state?.status)) item.state = { status: "cancelled" };
  if (item.id) fetch(`api/videos/${item.id}`, { method: "DELETE", keepalive: true }).catch(() => {});
  item.id = null;
}
