// Where a question is written. Enter sends, Shift+Enter is a new line.

import { announce } from "./announce.js";
import { count } from "./dom.js";
import { sentenceFor, spell, wordsFor } from "./problems.js";

const LONGEST = 10_000; // characters, as the API counts them
let drafts = new Map(); // by conversation, for as long as the page lives and nobody else signs in

/** Forget what was written but not sent: somebody else may be next. */
export function forgetDrafts() {
  drafts = new Map();
}

/** `keep(conversation, text)` for a question that may turn out not to be sent. It does nothing where
 * something else is being written, or who wrote it is gone by then. */
export function draftKeeper() {
  const own = drafts;
  return function keep(conversation, text) {
    if (!own.get(conversation)) own.set(conversation, text);
  };
}

export class Composer {
  #slots;
  #conversation;
  #send;
  #isRunning = false;
  #countdown = null;

  constructor(slots, { conversation, send, stop }) {
    this.#slots = slots;
    this.#conversation = conversation;
    this.#send = send;
    const { composer, input } = slots;
    composer.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#isRunning) stop();
      else if (this.#maySend) this.#sendWritten();
    });
    input.addEventListener("input", () => {
      drafts.set(this.#conversation, input.value);
      this.#changed();
    });
    input.addEventListener("keydown", (event) => {
      // Not the Enter that ends the choice of a character, as in Japanese.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      if (!this.#isRunning) composer.requestSubmit();
    });
    this.restore();
  }

  /** The conversation has got its id. */
  set conversation(id) {
    drafts.set(id, this.#slots.input.value);
    drafts.delete(this.#conversation);
    this.#conversation = id;
  }

  /** Whether `text`, which could not be sent, is the draft again. */
  hasKept(text) {
    return drafts.get(this.#conversation) === text;
  }

  focus() {
    this.#slots.input.focus();
  }

  /** Show the draft of this conversation. */
  restore() {
    this.#slots.input.value = drafts.get(this.#conversation) ?? "";
    this.#changed();
  }

  /** Send `text` as once before, unless something else is under way or has to be waited for. */
  sendAgain(text) {
    if (this.#isRunning || this.#countdown) return;
    this.#tell("");
    this.#send(text);
  }

  #sendWritten() {
    const text = this.#slots.input.value.trim();
    drafts.delete(this.#conversation);
    this.restore();
    this.#tell("");
    this.#send(text);
  }

  /** While an answer is being written, the button stops it. */
  set isRunning(isRunning) {
    const { button, sendIcon, stopIcon } = this.#slots;
    this.#isRunning = isRunning;
    button.setAttribute("aria-label", isRunning ? "Stop" : "Send");
    sendIcon.toggleAttribute("hidden", isRunning);
    stopIcon.toggleAttribute("hidden", !isRunning);
    this.#changed();
  }

  /** Tell why a question was not answered, and wait for as long as the server asks for. */
  tellProblem(problem) {
    announce(sentenceFor(problem));
    clearInterval(this.#countdown);
    this.#countdown = null;
    if (problem.retryAfterS === null || problem.code === "insufficient_quota") {
      this.#tell(sentenceFor(problem));
      return;
    }
    const words = wordsFor(problem);
    const untilMs = Date.now() + problem.retryAfterS * 1000;
    const step = () => {
      const leftS = Math.ceil((untilMs - Date.now()) / 1000);
      if (leftS <= 0) {
        this.leave();
        announce("You can try again now.");
      }
      this.#tell(leftS > 0 ? `${words} Try again in ${spell(leftS)}.` : `${words} Try again now.`);
      this.#changed();
    };
    this.#countdown = setInterval(step, 1000);
    step();
  }

  /** To be called when the view goes. */
  leave() {
    clearInterval(this.#countdown);
    this.#countdown = null;
  }

  get #maySend() {
    const text = this.#slots.input.value.trim();
    return text !== "" && lengthOf(text) <= LONGEST && !this.#countdown;
  }

  #changed() {
    const { input, button, length } = this.#slots;
    button.disabled = !this.#isRunning && !this.#maySend;
    const characters = lengthOf(input.value.trim());
    length.hidden = characters <= LONGEST;
    length.textContent = `${count(characters, "character")} of ${count(LONGEST, "possible one")}.`;
    // As tall as its text; the style sheet says where that ends.
    input.style.height = "auto";
    input.style.height = `${input.scrollHeight}px`;
  }

  #tell(words) {
    this.#slots.notice.textContent = words;
    this.#slots.notice.hidden = !words;
  }
}

function lengthOf(text) {
  return text.length <= LONGEST ? text.length : [...text].length; // not in halves of emoji
}
