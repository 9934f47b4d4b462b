// The part of ComfyUI's scripts/api.js that web/ uses.

class Api extends EventTarget {
  workflows = {}; // by prompt id, as the server tells of a job

  async fetchApi(route) {
    const promptId = route.replace("/jobs/", "");
    const known = promptId in this.workflows;
    const job = { id: promptId, workflow_id: this.workflows[promptId] };
    return new Response(JSON.stringify(job), { status: known ? 200 : 404 });
  }

  apiURL(route) {
    return `/api${route}`;
  }

  // As messages of the websocket arrive.
  tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

export const api = new Api();
