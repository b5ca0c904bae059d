import { after, before } from 'node:test';
import { startKafka, type KafkaServer } from '../../src/demo/services/kafka.ts';
import { Proxy } from '../support/proxy.ts';
import { describeFaultTable } from './columns.ts';

let kafka: KafkaServer;
let proxy: Proxy;

/** A broker of our own: it has to tell clients the proxy's address. The harness uses its other listener. */
before(async () => {
  proxy = await Proxy.start();
  kafka = await startKafka({ advertised: [proxy.address] });
  proxy.forwardTo(kafka.brokers[0] as string);
  process.env['TEST_KAFKA_BROKERS'] = kafka.plaintextBrokers.join(',');
});

after(async () => {
  await proxy.close();
  await kafka.remove();
});

describeFaultTable('kafka', () => ({ proxy, address: proxy.address }));
