class DirectorAPI {
  constructor(token) {
    this.token = token;
    this.ws = null;
    this.eventHandlers = new Map();
  }

  connect() {
    return new Promise((resolve, reject) => {
      this.ws = new WebSocket('wss://api.director.example.com/v1/ws');

      this.ws.onopen = () => {
        this.ws.send(JSON.stringify({
          type: 'auth',
          token: this.token
        }));
        resolve();
      };

      this.ws.onmessage = (event) => {
        const message = JSON.parse(event.data);
        this.handleMessage(message);
      };

      this.ws.onerror = reject;
      this.ws.onclose = () => {
        console.log('WebSocket disconnected');
        // Attempt to reconnect
        setTimeout(() => this.connect(), 5000);
      };
    });
  }

  handleMessage(message) {
    const handler = this.eventHandlers.get(message.type);
    if (handler) {
      handler(message.data);
    }
  }

  on(type, handler) {
    this.eventHandlers.set(type, handler);
  }

  off(type) {
    this.eventHandlers.delete(type);
  }
}

// Usage
const api = new DirectorAPI('your_jwt_token');
await api.connect();

api.on('session_update', (data) => {
  console.log('Session updated:', data);
});

api.on('workflow_progress', (data) => {
  console.log('Workflow progress:', data);
});
