// The order as a program sends it, in a tab for each way to do so.
import { copyText } from "../browser/carry.js";
import { credentials } from "../server/key.js";
import { highlighted, snippet } from "./snippets.js";
import { stylesheet } from "./stylesheet.js";

const element = (id) => document.getElementById(id);
const TABS = ["curl", "fetch", "Python", "OpenAI"];

await stylesheet("code.css");

export class Code {
	#order = null;
	#kind;
	#chosen = TABS[0];

	constructor() {
		const tabs = TABS.map((name) => {
			const tab = document.createElement("button");
			Object.assign(tab, { id: `tab-${name}`, textContent: name, role: "tab" });
			tab.setAttribute("aria-controls", "snippet");
			tab.addEventListener("click", () => this.#choose(name));
			return tab;
		});
		element("tabs").append(...tabs);
		element("tabs").addEventListener("keydown", ({ key }) => {
			const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
			if (!step) return;
			this.#choose(TABS.at((TABS.indexOf(this.#chosen) + step) % TABS.length));
			element(`tab-${this.#chosen}`).focus();
		});
		element("streamed").addEventListener("change", () => this.#write());
		element("copy-code").addEventListener("click", () => copyText(element("snippet").textContent));
		this.#choose(this.#chosen);
	}

	show(order, kind) {
		this.#order = order;
		this.#kind = kind;
		this.#write();
	}

	#choose(name) {
		this.#chosen = name;
		for (const tab of element("tabs").children) {
			const chosen = tab.textContent === name;
			tab.setAttribute("aria-selected", chosen);
			tab.tabIndex = chosen ? 0 : -1;
		}
		element("snippet").setAttribute("aria-labelledby", `tab-${name}`);
		this.#write();
	}

	#write() {
		if (!this.#order) return;
		const options = { image: this.#kind === "image", streamed: element("streamed").checked, key: credentials().Authorization };
		element("snippet").replaceChildren(...highlighted(snippet(this.#chosen, this.#order, options)));
	}
}
