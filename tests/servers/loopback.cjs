// Loaded in front of a server (`node --require`): it listens on loopback only, and says where on stderr.
const net = require("node:net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  this.once("listening", () => process.stderr.write(`LISTENING ${this.address().port}\n`));
  return listen.call(this, { port: Number(port), host: "127.0.0.1" }, ...rest);
};
