// Orders that wait until those before them are served. The server has them already, so their place there is kept.
import { tab } from "../browser/storage.js";
import { toast } from "../browser/toast.js";
import { Job } from "../server/job.js";
import { say } from "./texts.js";

const KEPT = "line";
const list = document.getElementById("line");
let waiting = [];

export function add(job) {
	waiting.push(job);
	show();
	list.scrollIntoView({ block: "nearest" });
	job.submit().then(show, () => {}); // its turn tells what is wrong
}

export function next() {
	const problem = document.getElementById("problem");
	if (!problem.hidden) toast(problem.textContent); // which the next one takes away
	const job = waiting.shift();
	show();
	return job;
}

/** Those that waited when the page was left. */
export function restore() {
	waiting = (tab.read(KEPT) ?? []).map(({ order, key, id }) => new Job(order, key, id));
	show();
}

function show() {
	tab.set(KEPT, JSON.stringify(waiting.map(({ order, key, id }) => ({ order, key, id }))));
	const held = list.matches(":focus-within");
	list.replaceChildren(...waiting.map(item));
	if (held) (list.querySelector("button") ?? document.getElementById("serve")).focus();
}

function item(job) {
	const made = document.createElement("li");
	const name = made.appendChild(document.createElement("span"));
	name.dir = "auto";
	name.textContent = job.order.prompt;
	const leave = made.appendChild(document.createElement("button"));
	Object.assign(leave, { type: "button", textContent: "✕", title: say("line.leave"), ariaLabel: say("line.leave") });
	leave.addEventListener("click", () => {
		waiting = waiting.filter((each) => each !== job);
		show();
		job.submit().then(() => job.stop(), () => {});
	});
	return made;
}
