// The server as the page asks it: with the caller's key, for which a 401 asks the user.
import { models, status, warm as wake } from "../generate.js";
import { credentials, renew } from "./key.js";

/** Options of generate.js. `begun`: whether the user has just done what this is for, and so may be asked for a key. */
export const server = (begun = false) => ({
	url: document.documentElement.dataset.root,
	fetch: async function call(address, request) {
		const sent = credentials();
		const response = await fetch(address, { ...request, headers: { ...request.headers, ...sent } });
		if (response.status === 401 && (await renew(sent.Authorization, begun))) return call(address, request);
		return response;
	},
});

export const warm = (model) => wake(model, server());

export const statuses = () => status(server());

export const described = async () => (await models(server())).models;
