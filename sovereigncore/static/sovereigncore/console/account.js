// One's account: each part is a module of its own.

import { showKeys } from "./account-keys.js";
import { showLeaving } from "./account-leaving.js";
import { showProfile } from "./account-profile.js";
import { showSessions } from "./account-sessions.js";
import { clone } from "./dom.js";

export function accountView({ main, me, setTitle }) {
  const slots = clone("account");
  main.append(slots.root);
  setTitle("Account");
  showProfile(slots, me);
  showKeys(slots, me);
  showSessions(slots);
  showLeaving(slots, me);
}
