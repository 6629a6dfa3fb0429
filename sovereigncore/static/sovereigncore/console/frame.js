// What is around every view once somebody is signed in, and which view is in it.

import { accountView } from "./account.js";
import * as api from "./api.js";
import { watchServer } from "./awareness.js";
import { chatView } from "./chat.js";
import { ConversationList } from "./conversations.js";
import { clone } from "./dom.js";
import { sideMenu } from "./menu.js";
import { memoryView } from "./memory.js";
import { Problem } from "./problems.js";
import { follow, rename } from "./router.js";
import * as session from "./session.js";
import { usageView } from "./usage.js";

const VIEWS = { chat: chatView, memory: memoryView, usage: usageView, account: accountView };

/** Show the console of `me` in `place`; returns what takes it away. */
export function showFrame(place, me) {
  const slots = clone("frame");
  const { root, main, banner, who, admin, signOut } = slots;
  who.textContent = me.username;
  admin.hidden = !me.scopes.includes("admin");
  place.replaceChildren(root);

  const list = new ConversationList(slots);
  const server = watchServer(banner);
  const menu = sideMenu(slots);
  let view = null;
  let isFirst = true;
  const unfollow = follow(({ name, id }) => {
    view?.leave?.();
    main.replaceChildren();
    list.current = null;
    markCurrent(name);
    view = (VIEWS[name] ?? chatView)({ main, id, me, list, server, setTitle });
    menu.close();
    focusView(isFirst);
    isFirst = false;
  });
  signOut.addEventListener("click", async () => {
    signOut.disabled = true;
    try {
      await api.post("auth/logout");
    } catch (error) {
      // Out of reach, or over already: this browser forgets it all the same.
      if (!(error instanceof Problem)) throw error;
    }
    rename("#/chat"); // nobody else is told what was open
    session.end("You have signed out.");
  });
  list.reload();

  function setTitle(title) {
    document.title = `${title} · SovereignCore`;
    slots.where.textContent = title;
  }

  function markCurrent(name) {
    for (const link of slots.places.querySelectorAll("a")) {
      if (link.hash === `#/${name}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  function focusView(isFirst) {
    if (view?.focus) view.focus();
    else if (!isFirst) main.querySelector("h1").focus();
  }

  return function leave() {
    unfollow();
    view?.leave?.();
    server.stop();
    menu.leave();
    place.replaceChildren();
  };
}
