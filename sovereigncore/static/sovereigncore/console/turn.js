// One question and its answer on the page.

import { copy } from "./copy.js";
import { clone, count, make } from "./dom.js";
import { showText } from "./text.js";

const PROGRESS = { waiting: "Waiting for the engine …", writing: "", settling: "Ending …" };
const ENDS = {
  length: "The answer reached its length limit.",
  content_filter: "The engine’s filter ended the answer.",
};

export class Turn {
  #slots = clone("turn");

  constructor(prompt) {
    showText(this.#slots.prompt, prompt);
    this.#slots.copy.addEventListener("click", () => copy(this.#text, this.#slots.copy));
  }

  #text = "";

  get root() {
    return this.#slots.root;
  }

  /** While it is being written: readers of the screen are told when it is whole. */
  showProgress(state, text) {
    this.root.setAttribute("aria-busy", "true");
    this.root.classList.toggle("is-writing", state === "writing");
    this.#showAnswer(text);
    this.#note(PROGRESS[state]);
  }

  /** How it ended. `told` is what the server knows of the answer: its `done` event or its history. */
  showEnd(text, { told = null, note = "", tryAgain = null } = {}) {
    const { meta, again } = this.#slots;
    this.root.classList.remove("is-writing");
    this.#showAnswer(text);
    const notes = [note, ENDS[told?.finish_reason], droppedNote(told)].filter(Boolean);
    this.#note(notes.join(" "));
    this.#slots.copy.hidden = !text;
    meta.textContent = told ? factsOf(told).join(" · ") : "";
    this.#showMemories(told);
    again.hidden = !tryAgain;
    again.onclick = tryAgain;
    this.#slots.foot.hidden = false;
    this.root.removeAttribute("aria-busy");
  }

  #showAnswer(text) {
    this.#text = text;
    showText(this.#slots.answer, text);
  }

  #note(words) {
    this.#slots.note.textContent = words;
    this.#slots.note.hidden = !words;
  }

  #showMemories(told) {
    const { memories, summary, facts, remembered } = this.#slots;
    const used = told?.memories_used ?? [];
    memories.hidden = used.length === 0;
    summary.textContent = `${count(used.length, "memory", "memories")} used`;
    facts.replaceChildren(...used.map((fact) => make("li", { dir: "auto" }, fact.text)));
    remembered.hidden = !told?.memory_stored;
    remembered.textContent = told?.memory_stored ? `Remembered: ${told.memory_stored.text}` : "";
  }
}

function factsOf(told) {
  const isCached = told.cached || told.is_cached;
  if (!isCached && told.usage.total_tokens === 0) return []; // no engine had it
  return [
    told.model,
    count(told.usage.total_tokens, "token"),
    `${(told.processing_time_ms / 1000).toFixed(1)} s`,
    isCached ? "from the cache" : "",
  ].filter(Boolean);
}

function droppedNote(told) {
  if (!told?.turns_dropped) return "";
  return told.turns_dropped === 1
    ? "The oldest turn no longer fits and was left out."
    : `The ${told.turns_dropped} oldest turns no longer fit and were left out.`;
}
