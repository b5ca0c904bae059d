import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './install.ts';

/** PEM texts. The server's certificate is for 127.0.0.1 and localhost; the client's common name is `client`. */
export interface Certificates {
  readonly caPem: string;
  readonly server: { readonly certPem: string; readonly keyPem: string };
  readonly client: { readonly certPem: string; readonly keyPem: string };
  /** Common name in the client's certificate. */
  readonly clientName: string;
}

const CLIENT_NAME = 'outbox-relay-client';

/** A certificate authority that lives for a day, with one server and one client certificate, made in `folder`. */
export async function makeCertificates(folder: string): Promise<Certificates> {
  const ca = await makeAuthority(folder);
  const server = await makeCertificate(folder, 'server', 'localhost');
  const client = await makeCertificate(folder, 'client', CLIENT_NAME);
  return { caPem: ca, server, client, clientName: CLIENT_NAME };
}

async function openssl(folder: string, args: readonly string[]): Promise<void> {
  await run('openssl', args, { cwd: folder, remedy: 'Install it: apt-get install openssl' });
}

async function makeAuthority(folder: string): Promise<string> {
  const options = 'req -x509 -days 1 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt'.split(' ');
  const extensions = ['-addext', 'keyUsage=critical,keyCertSign,cRLSign'];
  await openssl(folder, [...options, '-subj', '/CN=outbox-relay test CA', ...extensions]);
  return readFileSync(join(folder, 'ca.crt'), 'utf8');
}

async function makeCertificate(
  folder: string,
  name: string,
  commonName: string,
): Promise<{ certPem: string; keyPem: string }> {
  writeFileSync(
    join(folder, 'extensions'),
    'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n',
  );
  const request = `req -newkey rsa:2048 -nodes -keyout ${name}.key -out ${name}.csr -subj /CN=${commonName}`;
  await openssl(folder, request.split(' '));
  const issue = `x509 -req -in ${name}.csr -days 1 -CA ca.crt -CAkey ca.key -CAcreateserial -out ${name}.crt`;
  await openssl(folder, [...issue.split(' '), '-extfile', 'extensions']);
  return {
    certPem: readFileSync(join(folder, `${name}.crt`), 'utf8'),
    keyPem: readFileSync(join(folder, `${name}.key`), 'utf8'),
  };
}
