// The order as a program sends it, in a tab for each way to do so.
import { copyText } from "../../browser/carry.js";
import { credentials } from "../../server/key.js";
import { t } from "../../texts/texts.js";
import { stylesheet } from "../stylesheet.js";
import { highlighted, snippet } from "./snippets.js";

const TABS = ["curl", "fetch", "Python", "OpenAI"];

await stylesheet("code/code.css");

export class Code {
	#order = null;
	#kind;
	#chosen = TABS[0];
	#tabs = made("div", { className: "tabs", role: "tablist" });
	#streamed = made("input", { id: "streamed", type: "checkbox" });
	#named = made("span", {});
	#copy = made("button", { id: "copy-code", className: "quiet" });
	#snippet = made("pre", { id: "snippet", tabIndex: 0, role: "tabpanel", dir: "ltr" });

	constructor() {
		for (const name of TABS) {
			const tab = this.#tabs.appendChild(made("button", { id: `tab-${name}`, textContent: name, role: "tab" }));
			tab.setAttribute("aria-controls", "snippet");
			tab.addEventListener("click", () => this.#choose(name));
		}
		this.#tabs.addEventListener("keydown", ({ key }) => {
			const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
			if (!step) return;
			this.#choose(TABS.at((TABS.indexOf(this.#chosen) + step) % TABS.length));
			this.#tabs.children[TABS.indexOf(this.#chosen)].focus();
		});
		this.#streamed.addEventListener("change", () => this.#write());
		this.#copy.addEventListener("click", () => copyText(this.#snippet.textContent));
		document.addEventListener("language", () => this.#name());
		const label = made("label", {});
		label.append(this.#streamed, " ", this.#named);
		const bar = made("div", { className: "codes" });
		bar.append(this.#tabs, label, this.#copy);
		document.getElementById("code").append(bar, this.#snippet);
		this.#name();
		this.#choose(this.#chosen);
	}

	show(order, kind) {
		this.#order = order;
		this.#kind = kind;
		this.#write();
	}

	#choose(name) {
		this.#chosen = name;
		for (const tab of this.#tabs.children) {
			const chosen = tab.textContent === name;
			tab.setAttribute("aria-selected", chosen);
			tab.tabIndex = chosen ? 0 : -1;
		}
		this.#snippet.setAttribute("aria-labelledby", `tab-${name}`);
		this.#write();
	}

	/** In the language of the page. */
	#name() {
		this.#tabs.ariaLabel = t("code");
		this.#named.textContent = t("streamed");
		this.#copy.textContent = t("copy");
	}

	#write() {
		if (!this.#order) return;
		const image = this.#kind === "image";
		this.#streamed.disabled = image && this.#chosen === "OpenAI"; // its answer is the same
		const options = { image, streamed: this.#streamed.checked, key: credentials().Authorization };
		this.#snippet.replaceChildren(...highlighted(snippet(this.#chosen, this.#order, options)));
	}
}

const made = (name, properties) => Object.assign(document.createElement(name), properties);
