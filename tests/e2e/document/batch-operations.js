// Create multiple departments in parallel
const departments = [
  { name: 'Frontend', domain: 'frontend', capabilities: ['react', 'vue'] },
  { name: 'Backend', domain: 'backend', capabilities: ['node', 'python'] },
  { name: 'DevOps', domain: 'devops', capabilities: ['docker', 'k8s'] }
];

const promises = departments.map(dept =>
  fetch('/departments', {
    method: 'POST',
    headers: {
      'Authorization': `Bearer ${token}`,
      'Content-Type': 'application/json'
    },
    body: JSON.stringify({
      sessionId: session.data.id,
      ...dept
    })
  })
);

const results = await Promise.all(promises);
console.log('Created departments:', results);
