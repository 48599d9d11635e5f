// One video on its way through the program: sent, watched while it is worked on, played when it is done.

/** An error with the sentence that the program gave. */
export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Ask the program for something; the answer, or a Refusal with its reason. */
export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(`api/${path}`, options);
  } catch {
    throw new Refusal(0, "The program does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  throw new Refusal(answer.status, body.detail || `The program answered with status ${answer.status}.`);
}

/**
 * Send a video and follow its states.
 * @param {{file: File, state: object, id: ?string}} item is kept up to date
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
    item.id = (await (await ask(`videos?${query}`, options)).json()).id;
  } catch (problem) {
    const cancelled = item.sending.signal.aborted;
    item.state = { status: cancelled ? "cancelled" : "failed", detail: problem.message };
    changed();
    return;
  }
  if (item.sending.signal.aborted) return forgetVideo(item);
  item.state.status = "running";
  item.news = new EventSource(`api/videos/${item.id}/news`);
  item.news.onmessage = (event) => {
    item.state = JSON.parse(event.data);
    item.routing = item.state.routing || {};
    if (item.state.status !== "running") item.news.close();
    changed();
  };
  item.news.onerror = () => {
    if (item.state.status !== "running") return;
    item.news.close(); // the program gives a video up that nobody listens to, so there is nothing to come back to
    item.state = { status: "failed", detail: "The connection to the program was lost." };
    changed();
  };
}

/** Stop the work on a video, and let the program delete what it has of it. */
export function forgetVideo(item) {
  item.sending?.abort();
  item.news?.close();
  if (item.state && (item.state.status === "running" || item.state.status === "sending")) item.state = { status: "cancelled" };
  if (item.id) fetch(`api/videos/${item.id}`, { method: "DELETE", keepalive: true }).catch(() => {});
  item.id = null;
}
