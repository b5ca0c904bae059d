import { mkdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { makeCertificates } from './certificates.ts';
import type { Certificates } from './certificates.ts';
import { ServiceFolder } from './folder.ts';
import { run } from './install.ts';
import type { OnProgress } from './install.ts';
import { freePorts } from './ports.ts';
import { accepts, greets } from './probe.ts';
import { rabbitmqPrograms } from './rabbitmq-install.ts';
import { ServerProcess } from './server-process.ts';

const START_TIMEOUT_MS = 90_000;

export interface RabbitmqOptions {
  /** Lines of rabbitmq.conf, over the defaults. */
  readonly settings?: Readonly<Record<string, string>>;
  /** A second listener with TLS; a client certificate is asked for, and with EXTERNAL it is the identity. */
  readonly tls?: boolean;
  readonly onProgress?: OnProgress;
}

export interface RabbitmqServer {
  /** amqp://guest:guest@… */
  readonly url: string;
  readonly port: number;
  /** Given with `tls`: amqps:// with user and password; the certificates' client name is a user as well. */
  readonly tls: { readonly url: string; readonly certificates: Certificates } | undefined;
  /** Everything of this broker, removed by `remove()`. */
  readonly folder: string;
  pid(): number;
  /** Runs rabbitmqctl and returns what it printed. */
  ctl(...args: string[]): Promise<string>;
  stop(signal?: NodeJS.Signals): Promise<void>;
  start(): Promise<void>;
  remove(): Promise<void>;
}

interface Ports {
  readonly amqp: number;
  readonly amqps: number;
  readonly distribution: number;
  readonly epmd: number;
}

/** RabbitMQ of our own on 127.0.0.1, in a temporary folder. */
export async function startRabbitmq(options: RabbitmqOptions = {}): Promise<RabbitmqServer> {
  const { onProgress = () => undefined } = options;
  const programs = await rabbitmqPrograms(onProgress);
  const folder = new ServiceFolder('rabbitmq');
  let server: Node | undefined;
  try {
    const certificates = options.tls === true ? await makeCertificates(folder.path) : undefined;
    const [amqp, amqps, distribution, epmd] = (await freePorts(4)) as [number, number, number, number];
    server = new Node({
      folder,
      programs,
      ports: { amqp, amqps, distribution, epmd },
      options,
      certificates,
    });
    onProgress('RabbitMQ: starting');
    await server.start();
    if (certificates !== undefined) await server.addCertificateUser(certificates.clientName);
    onProgress(`RabbitMQ: ready on port ${amqp}`);
    return server;
  } catch (error) {
    await (server ?? folder).remove();
    throw error;
  }
}

class Node implements RabbitmqServer {
  readonly url: string;
  readonly port: number;
  readonly tls: RabbitmqServer['tls'];
  readonly folder: string;
  private readonly parts: {
    readonly folder: ServiceFolder;
    readonly programs: string;
    readonly ports: Ports;
    readonly options: RabbitmqOptions;
    readonly certificates: Certificates | undefined;
  };
  private readonly env: NodeJS.ProcessEnv;
  private portMapper: ServerProcess | undefined;
  private broker: ServerProcess | undefined;

  constructor(parts: Node['parts']) {
    this.parts = parts;
    const { ports, certificates } = parts;
    this.folder = parts.folder.path;
    this.port = ports.amqp;
    this.url = `amqp://guest:guest@127.0.0.1:${ports.amqp}`;
    this.tls = certificates && { url: `amqps://guest:guest@127.0.0.1:${ports.amqps}`, certificates };
    this.env = this.environment();
    this.configure();
  }

  /** Everything that a node would otherwise share with one that the machine may run: names, ports, folders, cookie. */
  private environment(): NodeJS.ProcessEnv {
    const { folder, ports } = this.parts;
    const at = (name: string): string => join(folder.path, name);
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('RABBITMQ_'));
    return {
      ...Object.fromEntries(inherited),
      HOME: folder.path,
      LANG: 'C.UTF-8',
      ERL_EPMD_PORT: String(ports.epmd),
      ERL_EPMD_ADDRESS: '127.0.0.1',
      RABBITMQ_NODENAME: `${basename(folder.path)}@localhost`,
      RABBITMQ_NODE_IP_ADDRESS: '127.0.0.1',
      RABBITMQ_NODE_PORT: String(ports.amqp),
      RABBITMQ_DIST_PORT: String(ports.distribution),
      RABBITMQ_CONF_ENV_FILE: at('none'),
      RABBITMQ_CONFIG_FILE: at('rabbitmq.conf'),
      RABBITMQ_ADVANCED_CONFIG_FILE: at('none.config'),
      RABBITMQ_MNESIA_BASE: at('data'),
      RABBITMQ_LOG_BASE: at('log'),
      RABBITMQ_LOGS: '-',
      RABBITMQ_ENABLED_PLUGINS_FILE: at('enabled_plugins'),
      RABBITMQ_PID_FILE: at('pid'),
      RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none',
      // The script then becomes the Erlang machine instead of waiting for it: signals reach the broker itself.
      RUNNING_UNDER_SYSTEMD: 'true',
    };
  }

  private configure(): void {
    const { folder, ports, options, certificates } = this.parts;
    const all: Record<string, string> = {
      'listeners.tcp.default': `127.0.0.1:${ports.amqp}`,
      'log.console.level': 'warning',
      // The machine's size decides these by default; a full disk or other programs must not block publishers.
      'vm_memory_high_watermark.absolute': '1GB',
      'disk_free_limit.absolute': '50MB',
      ...(certificates && this.writeTls(certificates)),
      ...options.settings,
    };
    const lines = Object.entries(all).map(([name, value]) => `${name} = ${value}\n`);
    writeFileSync(join(folder.path, 'rabbitmq.conf'), lines.join(''));
    const plugins = certificates === undefined ? '' : 'rabbitmq_auth_mechanism_ssl';
    writeFileSync(join(folder.path, 'enabled_plugins'), `[${plugins}].\n`);
    mkdirSync(join(folder.path, 'log'));
  }

  private writeTls({ caPem, server }: Certificates): Record<string, string> {
    const { folder, ports } = this.parts;
    const write = (name: string, text: string): string => {
      const path = join(folder.path, name);
      writeFileSync(path, text, { mode: 0o600 });
      return path;
    };
    return {
      'listeners.ssl.default': `127.0.0.1:${ports.amqps}`,
      'ssl_options.cacertfile': write('tls-ca.pem', caPem),
      'ssl_options.certfile': write('tls-server.pem', server.certPem),
      'ssl_options.keyfile': write('tls-server.key', server.keyPem),
      'ssl_options.verify': 'verify_peer',
      'ssl_options.fail_if_no_peer_cert': 'false',
      ssl_cert_login_from: 'common_name',
      'auth_mechanisms.1': 'PLAIN',
      'auth_mechanisms.2': 'AMQPLAIN',
      'auth_mechanisms.3': 'EXTERNAL',
    };
  }

  pid(): number {
    if (this.broker?.running !== true) throw new Error('RabbitMQ is not running');
    return this.broker.pid;
  }

  async start(): Promise<void> {
    if (this.broker?.running === true) return;
    await this.startPortMapper();
    const { folder, programs } = this.parts;
    const started = await ServerProcess.start({
      folder,
      name: 'rabbitmq',
      command: join(programs, 'rabbitmq-server'),
      args: [],
      env: this.env,
    });
    this.broker = started;
    const { port } = this;
    await started.untilReady(async () => await greets(port), START_TIMEOUT_MS);
  }

  /** Erlang would start one for the whole machine and leave it behind; ours is a server like any other. */
  private async startPortMapper(): Promise<void> {
    if (this.portMapper?.running === true) return;
    const { folder, ports } = this.parts;
    this.portMapper = await ServerProcess.start({
      folder,
      name: 'epmd',
      command: 'epmd',
      args: ['-port', String(ports.epmd), '-address', '127.0.0.1'],
      env: this.env,
    });
    await this.portMapper.untilReady(async () => await accepts(ports.epmd), START_TIMEOUT_MS);
  }

  async ctl(...args: string[]): Promise<string> {
    return await run(join(this.parts.programs, 'rabbitmqctl'), ['-q', ...args], {
      cwd: this.parts.folder.path,
      env: this.env,
    });
  }

  async addCertificateUser(name: string): Promise<void> {
    await this.ctl('add_user', name, 'replaced-by-the-certificate');
    await this.ctl('clear_password', name);
    await this.ctl('set_permissions', '-p', '/', name, '.*', '.*', '.*');
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.broker?.stop(signal);
  }

  async remove(): Promise<void> {
    await this.stop('SIGKILL');
    await this.portMapper?.stop('SIGKILL');
    await this.parts.folder.remove();
  }
}
