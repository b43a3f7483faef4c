/** A model server of the test (conftest.py), told over HTTP what to do. */
export class Model {
	constructor(control, name) {
		this.url = `${control}/${name}`;
	}

	/** The next pieces of the running generation; null is its end. */
	send = (...pieces) => this.#tell({ send: pieces });

	/** The phase in which it is loading, or null. */
	load = (phase) => this.#tell({ phase });

	/** All of a picture. */
	paint = () => this.#tell({ paint: true });

	/** The requests that it got. */
	requests = async () => (await this.#tell({})).requests;

	/** Wait until it runs nothing; the test has a limit. */
	async idle() {
		while ((await this.#tell({})).running);
	}

	async #tell(what) {
		const answer = await fetch(this.url, { method: "POST", body: JSON.stringify(what) });
		return answer.json();
	}
}
