// Telling somebody who looks at something else that an order is served.
import { t } from "../texts/texts.js";
import { say } from "./texts.js";

const SLOW = 5_000; // an order that takes so long is worth it
const TITLE = document.title;
const stop = document.getElementById("stop");
const ask = Object.assign(document.createElement("button"), { id: "notify", className: "quiet", hidden: true });
let timer = 0;

stop.before(ask);

ask.addEventListener("click", () => {
	stop.focus();
	ask.hidden = true;
	Notification.requestPermission();
});
document.addEventListener("visibilitychange", () => document.hidden || (document.title = TITLE));

export function begun() {
	ended();
	ask.textContent = say("notify");
	timer = setTimeout(() => (ask.hidden = stop.hidden || globalThis.Notification?.permission !== "default"), SLOW);
}

export function ended() {
	clearTimeout(timer);
	ask.hidden = true;
}

export function served(prompt) {
	ended();
	if (!document.hidden) return;
	document.title = `✓ ${t("state.done")} · Shangcai`;
	if (globalThis.Notification?.permission === "granted") new Notification(t("state.done"), { body: prompt });
}
