// The caller's key, where the server wants one: asked for once, and kept in this browser.
import { always } from "../browser/storage.js";

const KEPT = "key";
const forget = document.getElementById("forget");
let key = always.get(KEPT);
let asking = null;
let declined = false;

function keep(value) {
	key = value;
	forget.hidden = !key;
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

async function ask() {
	const door = await import("../on_demand/door.js");
	const given = await door.ask(key !== null);
	declined = !given;
	if (given) keep(given);
	return !declined;
}

forget.hidden = !key;
forget.addEventListener("click", () => {
	keep(null);
	forget.previousElementSibling.focus();
});
