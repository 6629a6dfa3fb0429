// A conversation: what was said, and what is being said.

import { announce } from "./announce.js";
import { Composer, draftKeeper } from "./composer.js";
import {
  askToDelete,
  askToRename,
  readConversation,
  readTurns,
  titleFor,
} from "./conversation.js";
import { clone, whileBusy } from "./dom.js";
import { Exchange, runningIn } from "./exchange.js";
import { Problem, sentenceFor, wordsFor } from "./problems.js";
import { rename as renameAddress } from "./router.js";
import { Turn } from "./turn.js";

const NEW = "New conversation";
// An answer that another tab has asked for is looked for this often, and this many times.
const LOOK_AGAIN_MS = 3000;
const LOOKS = 40;
const NEAR_END_PX = 80;

export function chatView({ main, id, list, server, setTitle }) {
  return new Chat({ main, id, list, server, setTitle });
}

class Chat {
  #slots = clone("chat");
  #list;
  #server;
  #setTitle;
  #id;
  #composer;
  #exchange = null;
  #cursor = null;
  #isGone = false;
  #timer = null;

  constructor({ main, id, list, server, setTitle }) {
    this.#id = id;
    this.#list = list;
    this.#server = server;
    this.#setTitle = setTitle;
    const slots = this.#slots;
    main.append(slots.root);
    this.#composer = new Composer(slots, {
      conversation: id,
      send: (prompt) => this.#send(prompt),
      stop: () => this.#exchange.stop(),
    });
    slots.rename.addEventListener("click", () => this.#rename());
    slots.remove.addEventListener("click", () => this.#delete());
    slots.earlier.addEventListener("click", () =>
      whileBusy(slots.earlier, () => this.#showEarlier()),
    );
    this.#show();
  }

  focus() {
    // On a phone the keyboard would cover what one came to read.
    if (matchMedia("(hover: hover)").matches || !this.#id) this.#composer.focus();
  }

  leave() {
    this.#isGone = true;
    clearTimeout(this.#timer);
    this.#composer.leave();
  }

  // --- what was said -----------------------------------------------------------------------------

  async #show() {
    this.#list.current = this.#id;
    this.#nameIt(this.#id ? "" : NEW);
    const before = runningIn(this.#id);
    if (this.#id) await this.#load(LOOKS);
    if (this.#isGone) return;
    const own = runningIn(this.#id);
    if (own) this.#attach(own);
    else if (before) await this.#load(LOOKS); // it ended while the rest was read
    this.#showWelcome();
  }

  async #load(looksLeft) {
    const { log, problem } = this.#slots;
    log.setAttribute("aria-busy", "true"); // nobody wants all of it read out
    try {
      const [conversation, page] = await Promise.all([
        readConversation(this.#id),
        readTurns(this.#id),
      ]);
      if (this.#isGone) return;
      problem.hidden = true;
      this.#nameIt(conversation.title);
      this.#cursor = page.cursor;
      log.replaceChildren(...page.turns.map((query) => this.#turnOf(query)));
      this.#scrollToEnd();
      if (page.isUnfinished && !runningIn(this.#id)) this.#lookAgain(looksLeft);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (this.#isGone || error.isSessionOver) return;
      const isMissing = error.status === 404;
      problem.textContent = isMissing ? "There is no such conversation." : sentenceFor(error);
      problem.hidden = false;
      this.#slots.composer.hidden = isMissing;
    }
    this.#slots.earlier.hidden = this.#cursor === null;
    // Once what is there already cannot be taken for new.
    requestAnimationFrame(() => log.removeAttribute("aria-busy"));
  }

  #lookAgain(looksLeft) {
    this.#slots.elsewhere.hidden = looksLeft === 0;
    if (looksLeft === 0) return;
    this.#timer = setTimeout(async () => {
      this.#slots.elsewhere.hidden = true;
      if (!this.#exchange) await this.#load(looksLeft - 1);
    }, LOOK_AGAIN_MS);
  }

  #turnOf(query) {
    const turn = new Turn(query.prompt);
    const text = query.response ?? "";
    const problem = new Problem({ status: 0, code: query.error_code });
    const notes = { cancelled: stopNote(text), failed: failureNote(text, problem) };
    const tryAgain = query.status === "failed" ? this.#again(query.prompt) : null;
    turn.showEnd(text, { told: query, note: notes[query.status], tryAgain });
    return turn.root;
  }

  async #showEarlier() {
    const { log, scroller, earlier, problem } = this.#slots;
    try {
      const page = await readTurns(this.#id, this.#cursor);
      const fromEnd = scroller.scrollHeight - scroller.scrollTop;
      this.#cursor = page.cursor;
      earlier.hidden = this.#cursor === null;
      log.setAttribute("aria-busy", "true");
      log.prepend(...page.turns.map((query) => this.#turnOf(query)));
      scroller.scrollTop = scroller.scrollHeight - fromEnd;
      requestAnimationFrame(() => log.removeAttribute("aria-busy"));
    } catch (error) {
      problem.textContent = sentenceFor(error);
      problem.hidden = false;
    }
  }

  // --- what is being said ------------------------------------------------------------------------

  #send(prompt) {
    const exchange = new Exchange(prompt, this.#id);
    const asked = this.#id;
    const keepDraft = draftKeeper();
    exchange.finished.then(() => {
      // Also when nobody looks any more.
      if (exchange.state !== "done" && !exchange.text) keepDraft(asked, prompt);
      if (exchange.conversation) this.#list.reload();
    });
    this.#attach(exchange);
    this.#scrollToEnd();
  }

  #attach(exchange) {
    const turn = new Turn(exchange.prompt);
    this.#exchange = exchange;
    this.#composer.isRunning = true;
    this.#slots.log.append(turn.root);
    this.#showWelcome();
    let isDue = false;
    const draw = () => {
      isDue = false;
      if (this.#isGone || !exchange.isRunning) return;
      const wasAtEnd = this.#isAtEnd;
      turn.showProgress(exchange.state, exchange.text);
      if (wasAtEnd) this.#scrollToEnd();
    };
    const end = exchange.subscribe(() => {
      if (!isDue) requestAnimationFrame(draw); // tokens come faster than screens change
      isDue = true;
    });
    draw();
    exchange.finished.then(() => {
      end();
      if (!this.#isGone) this.#finish(exchange, turn);
    });
  }

  #finish(exchange, turn) {
    const wasAtEnd = this.#isAtEnd;
    this.#exchange = null;
    this.#composer.isRunning = false;
    const isBegun = this.#id === null && exchange.conversation !== null;
    if (isBegun) this.#begin(exchange);
    if (exchange.state === "done") {
      turn.showEnd(exchange.text, { told: exchange.answer });
      this.#server.show(exchange.answer.cognitive_mode);
      announce("The answer is complete.");
    } else if (exchange.state === "stopped") {
      this.#showStopped(exchange, turn);
    } else {
      this.#showFailed(exchange, turn);
    }
    this.#showWelcome();
    if (wasAtEnd) this.#scrollToEnd();
  }

  #showStopped(exchange, turn) {
    announce("Stopped.");
    this.#showUnfinished(exchange, turn, stopNote(exchange.text));
  }

  #showFailed(exchange, turn) {
    const { problem } = exchange;
    if (problem.code === "survival_mode") this.#server.show("survival");
    this.#showUnfinished(exchange, turn, failureNote(exchange.text, problem));
    this.#composer.tellProblem(problem);
  }

  #showUnfinished(exchange, turn, note) {
    if (!exchange.text && this.#composer.hasKept(exchange.prompt)) {
      turn.root.remove(); // the question is where it came from
      this.#composer.restore();
      this.#composer.focus();
      return;
    }
    const isOver = exchange.state === "stopped" && exchange.text;
    turn.showEnd(exchange.text, { note, tryAgain: isOver ? null : this.#again(exchange.prompt) });
  }

  #again(prompt) {
    return () => this.#composer.sendAgain(prompt);
  }

  /** The conversation that the first answer made. */
  #begin(exchange) {
    this.#id = exchange.conversation;
    this.#composer.conversation = this.#id;
    this.#list.current = this.#id;
    this.#nameIt(titleFor(exchange.prompt));
    renameAddress(`#/chat/${this.#id}`);
  }

  // --- its name and its end ----------------------------------------------------------------------

  #nameIt(title) {
    this.#slots.title.textContent = title;
    this.#slots.actions.hidden = !this.#id;
    this.#setTitle(title || "Conversation");
  }

  #rename() {
    askToRename(this.#id, this.#slots.title.textContent, (title) => {
      this.#nameIt(title);
      this.#list.renamed(this.#id, title);
    });
  }

  #delete() {
    const id = this.#id;
    askToDelete(id, () => {
      this.#exchange?.stop();
      this.#list.deleted(id);
      location.hash = "#/chat";
    });
  }

  // --- the page ----------------------------------------------------------------------------------

  #showWelcome() {
    this.#slots.welcome.hidden = this.#id !== null || this.#slots.log.children.length > 0;
  }

  get #isAtEnd() {
    const { scroller } = this.#slots;
    return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_END_PX;
  }

  #scrollToEnd() {
    this.#slots.scroller.scrollTop = this.#slots.scroller.scrollHeight;
  }
}

function stopNote(text) {
  return text ? "You stopped this answer." : "Stopped before anything was written.";
}

function failureNote(text, problem) {
  return `${text ? "Interrupted" : "Not answered"}: ${wordsFor(problem)}`;
}
