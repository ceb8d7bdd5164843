"use strict";

// Everything here is a convenience: without it the pages do the same, by links, forms and a reload now and then.

document.documentElement.classList.add("scripted");

const one = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];
const visible = (element) => element !== null && element.getClientRects().length > 0;

// -- times on the reader's own clock -----------------------------------------------------------------------------

function localTimes(within) {
  for (const time of within.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    time.title = moment.toLocaleString();
    if (time.dataset.clock !== undefined) time.textContent = moment.toLocaleTimeString("en-GB");
  }
}

// -- keys --------------------------------------------------------------------------------------------------------

const typing = (target) => target.closest("input, textarea, select, dialog[open], [contenteditable]") !== null;

function step(by) {
  const rows = all("[data-row]").filter(visible);
  if (rows.length === 0) return;
  const now = rows.indexOf(document.activeElement);
  const next = now < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(Math.max(now + by, 0), rows.length - 1);
  rows[next].focus();
}

// A letter never decides anything: it goes to the button, which one then presses.
function goTo(key) {
  const target = all(`[data-key="${key}"]`).find(visible);
  if (target === undefined) return;
  target.focus();
  target.scrollIntoView({ block: "center" });
}

function edit() {
  const place = one("details[data-fields]") || one("[data-fields]");
  if (place === null) return;
  if (place.tagName === "DETAILS") place.open = true;
  const field = place.querySelector("input:not([type=hidden]), textarea, select");
  if (field !== null) field.focus();
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  a: () => goTo("a"),
  r: () => goTo("r"),
  c: () => goTo("c"),
  e: edit,
  u: () => { const up = one('[data-key="u"]') || one(".top nav a"); if (up !== null) up.click(); },
  "/": () => { const filter = one("[data-filter]"); if (filter !== null) filter.focus(); },
  "?": () => one("dialog[data-keys]").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (typing(event.target)) {
    if (event.key === "Escape" && event.target.closest("dialog") === null) event.target.blur();
    return;
  }
  const act = Object.hasOwn(KEYS, event.key) ? KEYS[event.key] : undefined;
  if (act === undefined) return;
  event.preventDefault();
  act();
});

// -- choosing from a list is enough ------------------------------------------------------------------------------

for (const select of all("[data-submit]")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}

// -- one press, one answer ---------------------------------------------------------------------------------------

for (const form of all('main form[method="post"]')) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
    setTimeout(() => delete form.dataset.sent, 5000);
  });
}

// -- what is new comes by itself ---------------------------------------------------------------------------------

function say(words) {
  one("[data-said]").textContent = words;
}

function takeOver(live, fresh) {
  if (fresh.dataset.version === live.dataset.version) {
    // Nothing new: the times alone, so that nobody's place on the page is touched.
    const times = fresh.querySelectorAll("[data-age]");
    live.querySelectorAll("[data-age]").forEach((time, index) => {
      if (times[index] !== undefined) time.textContent = times[index].textContent;
    });
    return;
  }
  const focused = live.contains(document.activeElement) ? document.activeElement : null;
  const place = focused === null ? null : focused.getAttribute("href");
  const opened = [...live.querySelectorAll("details")].map((details) => details.open);
  const scrolled = [...live.querySelectorAll(".picture")].map((picture) => picture.scrollLeft);
  const added = Number(fresh.dataset.count || 0) - Number(live.dataset.count || 0);
  live.replaceChildren(...fresh.childNodes);
  Object.assign(live.dataset, fresh.dataset);
  live.querySelectorAll("details").forEach((details, index) => { details.open = opened[index] || details.open; });
  live.querySelectorAll(".picture").forEach((picture, index) => { picture.scrollLeft = scrolled[index] || 0; });
  localTimes(live);
  const again = place === null ? null : live.querySelector(`[href="${CSS.escape(place)}"]`);
  if (again !== null) again.focus({ preventScroll: true });
  if (added > 0) say(added === 1 ? "One more question" : `${added} more questions`);
}

async function refresh() {
  const live = one("[data-live]");
  if (live === null || document.hidden || live.contains(document.activeElement) && typing(document.activeElement)) return;
  const answer = await fetch(location.href, { redirect: "manual", cache: "no-store" });
  // The session is over: a list that stands still would look as if nothing were new.
  if (answer.type === "opaqueredirect") location.reload();
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-live]");
  if (fresh !== null) takeOver(live, document.importNode(fresh, true));
}

function follow() {
  const live = one("[data-live]");
  const seconds = live === null ? 0 : Number(live.dataset.live);
  if (seconds > 0) setTimeout(() => refresh().catch(() => undefined).finally(follow), seconds * 1000);
}

localTimes(document);
follow();
const trouble = one("[data-trouble]");
if (trouble !== null) trouble.focus();
