// 1. Create a session
const sessionResponse = await fetch('/sessions', {
  method: 'POST',
  headers: {
    'Authorization': `Bearer ${token}`,
    'Content-Type': 'application/json'
  },
  body: JSON.stringify({
    type: 'director',
    name: 'Development Session'
  })
});

const session = await sessionResponse.json();

// 2. Create a department
const departmentResponse = await fetch('/departments', {
  method: 'POST',
  headers: {
    'Authorization': `Bearer ${token}`,
    'Content-Type': 'application/json'
  },
  body: JSON.stringify({
    sessionId: session.data.id,
    name: 'Code Review Department',
    domain: 'code-review',
    capabilities: ['javascript', 'typescript']
  })
});

const department = await departmentResponse.json();

// 3. Create a workflow
const workflowResponse = await fetch('/workflows', {
  method: 'POST',
  headers: {
    'Authorization': `Bearer ${token}`,
    'Content-Type': 'application/json'
  },
  body: JSON.stringify({
    sessionId: session.data.id,
    name: 'Automated Code Review',
    steps: [
      {
        type: 'execute',
        command: 'npm test',
        timeout: 300000
      },
      {
        type: 'verify',
        criteria: 'tests pass'
      }
    ]
  })
});

const workflow = await workflowResponse.json();

// 4. Start the workflow
await fetch(`/workflows/${workflow.data.id}/start`, {
  method: 'POST',
  headers: {
    'Authorization': `Bearer ${token}`,
    'Content-Type': 'application/json'
  }
});
