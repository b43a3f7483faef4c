// What this browser keeps for the page. Where it keeps nothing, as with cookies blocked, the page itself remembers.
class Storage {
	#name;
	#memory = new Map();

	constructor(name) {
		this.#name = name;
	}

	get(key) {
		if (this.#memory.has(key)) return this.#memory.get(key);
		try {
			return globalThis[this.#name].getItem(key);
		} catch {
			return null;
		}
	}

	/** What was kept as JSON; null where it is none. */
	read(key) {
		try {
			return JSON.parse(this.get(key));
		} catch {
			return null;
		}
	}

	set(key, value) {
		try {
			globalThis[this.#name].setItem(key, value);
			this.#memory.delete(key);
		} catch {
			this.#memory.set(key, value);
		}
	}

	remove(key) {
		this.#memory.delete(key);
		try {
			globalThis[this.#name].removeItem(key);
		} catch {} // then it has kept nothing
	}
}

export const tab = new Storage("sessionStorage");
export const always = new Storage("localStorage");
