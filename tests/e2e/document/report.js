
// -- beside the document: wait for the end, and tell the test what was seen --
const run = await call(`/workflows/${workflow.data.id}/status?wait=60`);
while (!frames.workflow_progress.some((data) => data.status === run.status)) {
  await new Promise((resolve) => setTimeout(resolve, 20));
}
const made = await Promise.all(results.map((response) => response.json()));
console.log(`REPORT ${JSON.stringify({ session, department, workflow, made, run, frames })}`);
process.exit(0);
