import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { findService } from '../test/support/services.ts';
import type { Service, ServiceName } from '../test/support/services.ts';

const NAMES: readonly ServiceName[] = ['postgres', 'kafka', 'rabbitmq'];

/**
 * The servers of one test run. Test files ask for them by HTTP on 127.0.0.1 (`TEST_SERVICES`): the first one that
 * asks makes a server start, nobody's question starts none.
 */
export class TestServices {
  readonly url: string;
  private readonly server: ReturnType<typeof createServer>;
  private readonly services = new Map<ServiceName, Promise<Service>>();
  private readonly report: (line: string) => void;

  private constructor(server: ReturnType<typeof createServer>, report: (line: string) => void) {
    this.server = server;
    this.report = report;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      void this.answer(request.url ?? '', response);
    });
  }

  static async start(report: (line: string) => void): Promise<TestServices> {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new TestServices(server, report);
  }

  /** Removes what was started, also what is still starting. */
  async remove(): Promise<void> {
    this.server.close();
    this.server.closeAllConnections();
    const started = await Promise.allSettled(this.services.values());
    await Promise.all(
      started.map(
        async (service) => await (service.status === 'fulfilled' ? service.value.remove() : undefined),
      ),
    );
  }

  private async answer(path: string, response: ServerResponse): Promise<void> {
    const name = NAMES.find((known) => path === `/${known}`);
    if (name === undefined) {
      response.writeHead(404).end(`unknown service ${path}`);
      return;
    }
    try {
      response.end((await this.service(name)).url);
    } catch (error) {
      response.writeHead(500).end(error instanceof Error ? error.message : String(error));
    }
  }

  private async service(name: ServiceName): Promise<Service> {
    let service = this.services.get(name);
    if (service === undefined) {
      service = this.find(name);
      this.services.set(name, service);
    }
    return await service;
  }

  private async find(name: ServiceName): Promise<Service> {
    const started = performance.now();
    // This process is the test run: it must not ask itself.
    const service = await findService(name, { ...process.env, TEST_SERVICES: undefined });
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    this.report(`${name}: ${service.origin}, ready after ${seconds} s`);
    return service;
  }
}
