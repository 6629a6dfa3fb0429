// How the server is, as far as it matters to who asks it something.

import * as api from "./api.js";
import { Problem } from "./problems.js";

const LOOK_EVERY_MS = 60_000;
const WORDS = {
  conserving: "The server is saving resources: answers are shorter and may take longer.",
  survival: "The server takes no questions for now. It is short of resources, or has no engine.",
};

/** Watch it for as long as somebody is signed in: `stop()` ends that. */
export function watchServer(banner) {
  const timer = setInterval(look, LOOK_EVERY_MS);
  look();

  async function look() {
    if (document.hidden) return;
    try {
      show((await api.get("consciousness/state")).cognitive_mode);
    } catch (error) {
      // Next time; whatever else is asked of the server tells too. A session that is over has
      // told so already.
      if (!(error instanceof Problem)) throw error;
    }
  }

  /** `mode`: full, conserving or survival, as answers tell it too. */
  function show(mode) {
    const words = WORDS[mode] ?? "";
    if (banner.textContent !== words) banner.textContent = words;
    banner.hidden = !words;
  }

  return { show, stop: () => clearInterval(timer) };
}
