
// -- beside the document: keep what its handlers are given --
const frames = { session_update: [], workflow_progress: [] };
for (const type of Object.keys(frames)) {
  const handler = api.eventHandlers.get(type);
  api.on(type, (data) => {
    frames[type].push(data);
    handler(data);
  });
}

// -- the document --
