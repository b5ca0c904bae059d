import { startPostgres, type PostgresServer } from '../../../src/demo/services/postgres.ts';
import type { Broker } from './brokers.ts';
import { KafkaBroker } from './kafka-broker.ts';
import { RabbitmqBroker } from './rabbitmq-broker.ts';
import { POSTGRES_SETTINGS } from './server.ts';

/** Servers of the harness's own, kept from round to round. */
export class Arena {
  readonly postgres: PostgresServer;
  readonly broker: Broker;

  private constructor(postgres: PostgresServer, broker: Broker) {
    this.postgres = postgres;
    this.broker = broker;
  }

  static async open(broker: 'kafka' | 'rabbitmq', options: { kafkaBrokers?: 1 | 3 } = {}): Promise<Arena> {
    const [postgres, started] = await Promise.all([
      startPostgres({ settings: POSTGRES_SETTINGS }),
      broker === 'kafka' ? KafkaBroker.open(options.kafkaBrokers ?? 3) : RabbitmqBroker.open(),
    ]);
    return new Arena(postgres, started);
  }

  /** Everything runs and every line is whole, whatever a round left behind. */
  async heal(): Promise<void> {
    for (const line of this.broker.lines) line.heal();
    await Promise.all([this.postgres.start(), this.broker.restore()]);
  }

  async remove(): Promise<void> {
    await Promise.all([this.postgres.remove(), this.broker.remove()]);
  }
}
