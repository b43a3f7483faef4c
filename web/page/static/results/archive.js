// The results of this browser, in its IndexedDB, or in memory where there is none.
const MOST = 200;

const NAME = "shangcai";
const STORE = "results";
const memory = new Map();

const done = (request) =>
	new Promise((resolve, reject) => {
		request.onsuccess = () => resolve(request.result);
		request.onerror = () => reject(request.error);
	});

async function opened() {
	const request = indexedDB.open(NAME, 1);
	request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" }).createIndex("at", "at");
	return done(request);
}

const database = opened().catch(() => null);

async function store(mode) {
	return (await database)?.transaction(STORE, mode).objectStore(STORE);
}

/** All results, the latest first. */
export async function all() {
	const results = await store("readonly");
	const found = results ? await done(results.index("at").getAll()) : [...memory.values()];
	return found.reverse();
}

/** Keep a result; forget the oldest beyond MOST that have no star, and return their ids. */
export async function keep(result) {
	const results = await store("readwrite");
	if (!results) memory.set(result.id, result);
	else await done(results.put(result)).catch(() => {}); // the disk is full; the stage still has it
	const left = await all();
	const plain = left.filter(({ starred }) => !starred);
	const old = plain.slice(Math.max(MOST - left.length + plain.length, 0)).map(({ id }) => id);
	for (const id of old) await forget(id);
	return old;
}

export async function forget(id) {
	memory.delete(id);
	const results = await store("readwrite");
	if (results) await done(results.delete(id));
}

export async function clear() {
	memory.clear();
	const results = await store("readwrite");
	if (results) await done(results.clear());
}
