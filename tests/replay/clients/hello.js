// Says hello over TLS to PORT many times, each time in another way. It expects no answer.
const tls = require("tls");
const port = Number(process.argv[2]);
const ways = [];
for (const servername of ["node.example.com", ""])
  for (const ALPNProtocols of [undefined, ["h2"], ["h2", "http/1.1"], ["acme-tls/1"]])
    for (const maxVersion of ["TLSv1.2", "TLSv1.3"]) ways.push({ servername, ALPNProtocols, maxVersion });
(function next() {
  const way = ways.shift();
  if (!way) return;
  const socket = tls.connect({ host: "127.0.0.1", port, rejectUnauthorized: false, ...way });
  socket.on("error", () => {});
  socket.on("close", next);
})();
