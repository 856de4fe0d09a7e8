// Opens tunnels with Node's http2 module, one after the other on one connection, and prints a line
// of JSON for each. Arguments: the server's URL, the folder with root.pem, node.pem and node.key,
// an authority that is admitted, one that is refused.
import { readFileSync } from 'node:fs';
import { connect } from 'node:http2';

const [url, folder, admitted, denied] = process.argv.slice(2);
const session = connect(url, {
  ca: readFileSync(`${folder}/root.pem`),
  cert: readFileSync(`${folder}/node.pem`),
  key: readFileSync(`${folder}/node.key`),
  // The certificate names an identity and no host; its chain is still verified.
  checkServerIdentity: () => undefined,
});

function tunnel(authority, begin, end) {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ':method': 'CONNECT', ':authority': authority });
    let status = 0;
    let body = '';
    stream.on('error', reject);
    stream.on('response', (headers) => { status = headers[':status']; });
    stream.setEncoding('utf8');
    stream.on('data', (text) => { body += text; });
    stream.on('end', () => end(stream));
    stream.on('close', () => resolve({ status, body }));
    begin(stream);
  });
}

const said = (heard) => console.log(JSON.stringify(heard));
// `e`: the app echoes, and finishes after this end has.
said(await tunnel(admitted, (stream) => stream.end('esaid by node'), () => {}));
// `f`: the app finishes first; this end does when it has heard that.
said(await tunnel(admitted, (stream) => stream.write('f'), (stream) => stream.end()));
said(await tunnel(denied, () => {}, (stream) => stream.end()));
session.close();
