import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { installOnce, run } from './install.ts';
import type { OnProgress } from './install.ts';

const KAFKA = { groupId: 'org.apache.kafka', artifactId: 'kafka_2.13', version: '4.1.0' };
// Kafka logs through slf4j 1.7; this binding writes warnings to stderr, which is what a failed start needs.
const SLF4J = { groupId: 'org.slf4j', artifactId: 'slf4j-simple', version: '1.7.36' };
const COPY = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies';

const REMEDY =
  'Kafka needs Java 17 or newer and Maven: apt-get install openjdk-17-jre-headless maven; or give a broker by URL.';

type Artifact = typeof KAFKA;

function dependency({ groupId, artifactId, version }: Artifact): string {
  return `<dependency><groupId>${groupId}</groupId><artifactId>${artifactId}</artifactId><version>${version}</version></dependency>`;
}

function pom(): string {
  return [
    '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>',
    '<groupId>outbox-relay</groupId><artifactId>kafka-server</artifactId><version>1</version>',
    `<packaging>pom</packaging><dependencies>${dependency(KAFKA)}${dependency(SLF4J)}</dependencies></project>`,
  ].join('\n');
}

/** The class path of a Kafka server; fetched from Maven Central when it is not in the cache. */
export async function kafkaClassPath(onProgress: OnProgress): Promise<string> {
  await run('java', ['-version'], { remedy: REMEDY });
  const folder = await installOnce(`kafka-${KAFKA.version}`, async (target) => {
    onProgress(`Kafka ${KAFKA.version}: fetching it from Maven Central`);
    writeFileSync(join(target, 'pom.xml'), pom());
    const args = ['-B', '-q', COPY, '-DincludeScope=runtime', '-DoutputDirectory=lib'];
    await run('mvn', args, { cwd: target, remedy: REMEDY });
  });
  return join(folder, 'lib', '*');
}
