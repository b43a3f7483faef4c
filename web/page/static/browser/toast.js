// A message that disappears by itself, with a way back where there is one.
import { t } from "../texts/texts.js";

let timer;

export function toast(text, undo = null) {
	const element = document.getElementById("toast");
	const before = document.activeElement;
	const close = () => {
		if (element.matches(":focus-within")) before.focus({ preventScroll: true });
		element.replaceChildren();
	};
	element.replaceChildren(text);
	if (undo) {
		const button = document.createElement("button");
		button.textContent = t("undo");
		button.addEventListener("click", () => {
			close();
			undo();
		});
		element.append(" ", button);
	}
	clearTimeout(timer);
	timer = setTimeout(close, undo ? 20_000 : 2_500);
}
