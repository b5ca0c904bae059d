import { LogicalReplicationService, PgoutputPlugin, type Pgoutput } from 'pg-logical-replication';
import { parseLsn } from '../../src/postgres/lsn.ts';
import type { CaptureScene } from './capture.ts';

export type LibraryOptions = ConstructorParameters<typeof LogicalReplicationService>[1];

const MANUAL: LibraryOptions = { acknowledge: { auto: false, timeoutSeconds: 0 } };

/** The library as its own documentation uses it: the naive reader, and the oracle of the differential test. */
export class LibraryReader {
  readonly service: LogicalReplicationService;
  readonly inserts: Pgoutput.MessageInsert[] = [];
  readonly commitEnds: bigint[] = [];
  readonly errors: Error[] = [];
  /** Called with each inserted row, before it is kept. */
  onInsert: (insert: Pgoutput.MessageInsert) => void | Promise<void> = () => undefined;
  private readonly scene: CaptureScene;

  constructor(scene: CaptureScene, options: LibraryOptions = MANUAL) {
    this.scene = scene;
    this.service = new LogicalReplicationService({ connectionString: scene.database.url }, options ?? {});
    this.service.on('error', (error) => this.errors.push(error));
    this.service.on('data', async (_lsn: string, message: Pgoutput.Message) => {
      if (message.tag === 'commit') this.commitEnds.push(parseLsn(message.commitEndLsn ?? ''));
      if (message.tag !== 'insert') return;
      await this.onInsert(message);
      this.inserts.push(message);
    });
  }

  /** Streams until `close`. Subscribing a second time is what trap 3 is about. */
  subscribe(slotName: string, plugin = new PgoutputPlugin(this.pluginOptions)): void {
    this.service.subscribe(plugin, slotName).catch((error: Error) => this.errors.push(error));
  }

  get pluginOptions(): Pgoutput.Options {
    return { protoVersion: 1, publicationNames: [this.scene.config.publicationName] };
  }

  /** Column `type` of every row, by which tests name their events. */
  get names(): string[] {
    return this.inserts.map((insert) => String(insert.new['type']));
  }

  async close(): Promise<void> {
    await this.service.destroy();
  }
}
