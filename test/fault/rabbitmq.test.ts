import { after, before } from 'node:test';
import { Proxy } from '../support/proxy.ts';
import { rabbitmqService } from '../support/services.ts';
import { describeFaultTable } from './columns.ts';

let proxy: Proxy;
let address: string;

before(async () => {
  const { url } = await rabbitmqService();
  proxy = await Proxy.start(url);
  address = proxy.url(url);
});

after(async () => await proxy.close());

describeFaultTable('rabbitmq', () => ({ proxy, address }));
