// What was used: today's quota, and day by day.

import * as api from "./api.js";
import { clone, count, make, moment } from "./dom.js";
import { Problem, sentenceFor, spell } from "./problems.js";

const DAYS = 30;
const DAY_MS = 24 * 3600 * 1000;
const DATE = { dateStyle: "medium", timeZone: "UTC" };
const format = new Intl.NumberFormat();

export function usageView({ main, setTitle }) {
  const slots = clone("usage");
  main.append(slots.root);
  setTitle("Usage");
  load();

  async function load() {
    try {
      const { quota, days } = await api.get(`usage?days=${DAYS}`);
      showQuota(quota);
      showBars(days);
      showTable(days);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (!error.isSessionOver) slots.problem.textContent = sentenceFor(error);
      return;
    }
    slots.body.hidden = false;
  }

  function showQuota({ limit, used, remaining, reset_s: resetS }) {
    slots.used.textContent = count(used, "token");
    slots.gauge.hidden = limit === null;
    if (limit === null) {
      slots.left.textContent = "Your account has no daily limit.";
      return;
    }
    slots.gauge.max = limit;
    slots.gauge.value = used;
    slots.left.textContent =
      `${format.format(remaining)} of ${format.format(limit)} left. ` +
      `The day ends at midnight UTC, in ${spell(resetS)}.`;
  }

  /** A column a day. The table says the same in words, so readers of the screen are spared this. */
  function showBars(days) {
    const tokens = new Map(days.map((day) => [day.day, day.total_tokens]));
    const most = Math.max(1, ...tokens.values());
    const today = Date.now();
    const bars = Array.from({ length: DAYS }, (_, index) => {
      const day = new Date(today - (DAYS - 1 - index) * DAY_MS).toISOString().slice(0, 10);
      const bar = make("span", { class: "day", title: `${day}: ${count(tokens.get(day) ?? 0, "token")}` });
      bar.style.height = `${(100 * (tokens.get(day) ?? 0)) / most}%`;
      return bar;
    });
    slots.bars.replaceChildren(...bars);
    slots.most.textContent = `Most on a day: ${count(most, "token")}`;
    slots.chart.hidden = days.length === 0;
  }

  function showTable(days) {
    slots.none.hidden = days.length > 0;
    slots.table.hidden = days.length === 0;
    slots.rows.replaceChildren(
      ...days.map((day) =>
        make(
          "tr",
          {},
          make("th", { scope: "row" }, moment(day.day, DATE)),
          make("td", {}, format.format(day.requests)),
          make("td", {}, format.format(day.cache_hits)),
          make("td", {}, format.format(day.prompt_tokens)),
          make("td", {}, format.format(day.completion_tokens)),
          make("td", {}, format.format(day.total_tokens)),
        ),
      ),
    );
  }
}
