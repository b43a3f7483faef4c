// The caller's key, where the server wants one: asked for once, and kept in this browser.
import { always } from "../browser/storage.js";
import { t } from "../texts/texts.js";

const KEPT = "key";
const element = (id) => document.getElementById(id);
let key = always.get(KEPT);
let asking = null;
let declined = false;

function keep(value) {
	key = value;
	element("forget").hidden = !key;
	if (key) always.set(KEPT, key);
	else always.remove(KEPT);
}

/** What `fetch` sends along. */
export const credentials = () => (key ? { Authorization: `Bearer ${key}` } : {});

/** Ask for another key than what was `sent`; whether there is one now. What the user has not begun asks only once. */
export async function renew(sent, begun) {
	if (credentials().Authorization !== sent) return true; // another call has got it meanwhile
	if (declined && !begun) return false;
	asking ??= ask().finally(() => (asking = null));
	return asking;
}

function ask() {
	const dialog = element("door");
	const why = element("door-why");
	why.dataset.t = key ? "key.refused" : "key.why";
	why.textContent = t(why.dataset.t);
	element("key").value = "";
	dialog.showModal();
	return new Promise((resolve) => {
		dialog.onclose = () => {
			const given = dialog.returnValue ? element("key").value.trim() : "";
			dialog.returnValue = element("key").value = "";
			declined = !given;
			if (given) keep(given);
			resolve(!declined);
		};
	});
}

element("forget").hidden = !key;
element("forget").addEventListener("click", () => keep(null));
element("door-no").addEventListener("click", () => element("door").close());
