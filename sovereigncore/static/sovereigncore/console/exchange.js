// One question and its answer, from the moment it is sent until the server keeps it. Knows no page:
// whoever shows it subscribes. It goes on when nobody does, so that one may look elsewhere meanwhile.

import * as api from "./api.js";
import { Problem, unreachable } from "./problems.js";
import * as session from "./session.js";
import { createParser } from "./sse.js";

const ANSWER_TOKENS = 1024;
// How long to ask, in ms, for what the server kept of an answer that did not end by itself. It
// notices within a second that nobody listens any more.
const LOOKS_MS = [150, 300, 600, 1200, 2400, 4800];

const ACTIVE = ["queued", "running"];

const running = new Set();

/** The one that goes on in a conversation (null: in one that has no id yet), or undefined. */
export function runningIn(conversation) {
  return [...running].find((exchange) => exchange.conversation === conversation);
}

/** Stop them all, for nobody is there any more to whom they belong. */
export function stopAll() {
  for (const exchange of running) exchange.stop();
}

export class Exchange {
  /** `state`: waiting, writing, settling; then done, stopped or failed (see `problem`). */
  state = "waiting";
  text = "";
  answer = null; // what the server tells at the end
  problem = null;
  #prompt;
  #requestId = newRequestId();
  #abort = new AbortController();
  #subscribers = new Set();

  constructor(prompt, conversation) {
    this.#prompt = prompt;
    this.conversation = conversation;
    running.add(this);
    this.finished = this.#run();
  }

  get prompt() {
    return this.#prompt;
  }

  get isRunning() {
    return running.has(this);
  }

  /** Call `handle` whenever something changed; returns what ends that. */
  subscribe(handle) {
    this.#subscribers.add(handle);
    return () => this.#subscribers.delete(handle);
  }

  /** The server stops generating; what was written until then stays as the turn. */
  stop() {
    this.#abort.abort();
  }

  async #run() {
    let state = "failed";
    try {
      await this.#stream();
      state = "done";
    } catch (error) {
      if (!(error instanceof Problem) && error.name !== "AbortError") throw error; // our mistake
      state = error instanceof Problem ? "failed" : "stopped";
      if (state === "failed") this.problem = error;
      if (this.state !== "waiting" || state === "stopped") await this.#settle();
    } finally {
      running.delete(this);
      this.#change(state);
    }
  }

  async #stream() {
    const response = await api.send("POST", "consciousness/process", {
      body: {
        prompt: this.#prompt,
        conversation: this.conversation ?? "new",
        max_tokens: ANSWER_TOKENS,
        stream: true,
      },
      headers: { "X-Request-ID": this.#requestId },
      signal: this.#abort.signal,
    });
    const parse = createParser((event) => this.#take(event));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await readFrom(reader); !part.done; part = await readFrom(reader)) {
      parse(part.value);
    }
    if (!this.answer) throw new Problem({ status: 0, code: "cut_off" });
  }

  #take({ name, data }) {
    const told = JSON.parse(data);
    if (name === "error") throw new Problem(told);
    if (name === "done") {
      this.answer = told;
      this.conversation = told.conversation;
    }
    if (name === "token") {
      this.text += told.text;
      this.#change("writing");
    }
  }

  /** Learn what was kept: the conversation, when this began it, and the text to its last letter. */
  async #settle() {
    this.#change("settling");
    for (const pause of LOOKS_MS) {
      await new Promise((resolve) => setTimeout(resolve, pause));
      const kept = await this.#find();
      if (kept && !ACTIVE.includes(kept.status)) {
        this.conversation = kept.conversation;
        this.text = kept.response ?? "";
        return;
      }
      if (!session.isOpen()) return; // nobody to ask for
    }
  }

  async #find() {
    try {
      const { results } = await api.page("consciousness/queries");
      return results.find((query) => query.request_id === this.#requestId);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      return undefined; // the next look may do better
    }
  }

  #change(state) {
    this.state = state;
    for (const handle of this.#subscribers) handle(this);
  }
}

async function readFrom(reader) {
  try {
    return await reader.read();
  } catch (error) {
    throw error.name === "AbortError" ? error : unreachable();
  }
}

function newRequestId() {
  // Not randomUUID(), which browsers have with https and on loopback only.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
