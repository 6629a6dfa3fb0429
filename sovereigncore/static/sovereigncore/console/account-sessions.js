// Where one is signed in.

import * as api from "./api.js";
import { ask } from "./dialogs.js";
import { clone, moment, whileBusy } from "./dom.js";
import { Problem, sentenceFor } from "./problems.js";
import * as session from "./session.js";

const PATH = "auth/sessions";

export function showSessions({ sessions, moreSessions, sessionsNote, endAll }) {
  let cursor = null;

  endAll.addEventListener("click", () =>
    ask({
      title: "Sign out everywhere?",
      text: "Every session ends, this one too. API keys go on working.",
      action: "Sign out everywhere",
      isDangerous: true,
      act: async () => {
        await api.remove(PATH);
        session.end("You have signed out everywhere.");
      },
    }),
  );
  moreSessions.addEventListener("click", () => whileBusy(moreSessions, () => load(cursor)));
  load();

  async function load(from = null) {
    try {
      const page = await api.page(PATH, { cursor: from });
      const rows = page.results.map(row);
      if (from) sessions.append(...rows);
      else sessions.replaceChildren(...rows);
      cursor = page.cursor;
      moreSessions.hidden = cursor === null;
      sessionsNote.textContent = "";
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      sessionsNote.textContent = error.isSessionOver ? "" : sentenceFor(error);
    }
  }

  function row(one) {
    const { root, agent, current, facts, end } = clone("session");
    agent.textContent = one.agent ? nameOf(one.agent) : "Unknown program";
    agent.title = one.agent;
    current.hidden = !one.current;
    facts.append(
      `${one.address ?? "Unknown address"}. Since `,
      moment(one.created_at),
      ", last renewed ",
      moment(one.last_used_at),
      ".",
    );
    end.hidden = one.current; // that is what signing out is for
    end.setAttribute("aria-label", `End the session of ${agent.textContent}`);
    end.addEventListener("click", () => whileBusy(end, () => endOne(one)));
    return root;
  }

  async function endOne(one) {
    try {
      await api.remove(`${PATH}/${one.id}`);
      await load();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      sessionsNote.textContent = sentenceFor(error);
    }
  }
}

/** `Firefox on Linux` out of a browser's description of itself; anything else as it is. */
function nameOf(agent) {
  if (!agent.startsWith("Mozilla/5.0")) return agent;
  const browser = ["Edg", "OPR", "Firefox", "Chrome", "Safari"].find((name) => agent.includes(name));
  const system = [
    ["Android", "Android"],
    ["iPhone", "iPhone"],
    ["iPad", "iPad"],
    ["Windows", "Windows"],
    ["Mac OS X", "macOS"],
    ["Linux", "Linux"],
  ].find(([mark]) => agent.includes(mark));
  const names = { Edg: "Edge", OPR: "Opera" };
  return [names[browser] ?? browser ?? "A browser", system && `on ${system[1]}`]
    .filter(Boolean)
    .join(" ");
}
