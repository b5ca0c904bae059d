import { loadDatabasePart } from '../config/load.ts';
import { connect, disconnect } from '../postgres/connect.ts';
import { type MigrationReport, migrate } from '../postgres/migrate.ts';
import { offerSizeLimit } from '../postgres/size-limit.ts';
import { type CommandContext, loadOptions } from './command.ts';
import { EXIT_FAILED } from './failure.ts';

/** Brings the database up to date. Exit code 1 when a step is left for a more privileged role. */
export async function run(context: CommandContext): Promise<number> {
  const config = loadDatabasePart(context.env, loadOptions(context));
  const dryRun = context.args.values['dry-run'] === true;
  const client = await connect(config.database.connection(), {
    applicationName: 'outbox-relay migrate',
    signal: context.signal,
  });
  try {
    const report = await migrate(client, {
      outbox: config.outbox,
      publicationName: config.source === 'polling' ? undefined : config.publicationName,
      cleanup: config.cleanup,
      adopt: context.args.values['adopt'] === true,
      dryRun,
      onProgress: (text) => void context.stderr.write(`${text}\n`),
      signal: context.signal,
    });
    if (dryRun) context.stdout.write(report.sql);
    else context.stdout.write(summary(report));
    const offer = report.applied.length > 0 ? await offerSizeLimit(client, config) : undefined;
    if (offer !== undefined)
      context.stderr.write(
        `-- offered, not run; keeps rows out that are too large for the relay:\n-- ${offer}\n`,
      );
    for (const remark of report.remarks)
      context.stderr.write(`warning: ${remark.message}\n  remedy: ${remark.remedy}\n`);
    const unfinished = report.remarks.some((remark) => remark.code === 'publication');
    return unfinished && !dryRun ? EXIT_FAILED : 0;
  } finally {
    await disconnect(client);
  }
}

function summary(report: MigrationReport): string {
  if (report.applied.length > 0) return report.applied.map((name) => `applied ${name}\n`).join('');
  return report.remarks.some((remark) => remark.code === 'publication') ? '' : 'nothing to do\n';
}
