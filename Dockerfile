# syntax=docker/dockerfile:1
# RUN lines use paths relative to WORKDIR, so that `npm test` can execute this very file step by step without an engine.

# The same Node.js as the dev dependency `node`; a test compares the two.
ARG NODE_IMAGE=node:24.21.0-bookworm-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# No install script is needed to compile, and none of a dependency's gets to run here.
RUN --mount=type=cache,target=/root/.npm npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
RUN node node_modules/typescript/bin/tsc -p tsconfig.build.json

FROM ${NODE_IMAGE} AS dependencies
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev --ignore-scripts

FROM ${NODE_IMAGE} AS production
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="outbox-relay" \
      org.opencontainers.image.description="Relays a PostgreSQL transactional outbox to Kafka or RabbitMQ" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
ENV NODE_ENV=production
# One pool of memory for all threads: 6 MB of 128 less at the peak, and no slower.
ENV MALLOC_ARENA_MAX=1
WORKDIR /app
# Everything below belongs to root and is only read by the relay: it needs no writable file, so `--read-only` works.
# A compile cache is left out on purpose: measured, it saves 12 to 18 ms of 170, for a stage more and a fixed user.
COPY --from=dependencies /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
COPY package.json LICENSE ./
COPY migrations ./migrations
# Numeric, because Kubernetes can only check runAsNonRoot against a number.
USER 10001:10001
EXPOSE 9464
# No curl in the image. HTTP_HOST and HTTP_PORT are followed; those that stand in a configuration file only are not.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "-e", "require('node:http').get({host:['','0.0.0.0','::'].includes(process.env.HTTP_HOST||'')?'127.0.0.1':process.env.HTTP_HOST,port:process.env.HTTP_PORT||9464,path:'/livez',timeout:4000},r=>process.exit(r.statusCode===200?0:1)).on('timeout',()=>process.exit(1)).on('error',()=>process.exit(1))"]
# Exec form: node itself is process 1 and receives SIGTERM. With a shell between them, a stop would never drain.
ENTRYPOINT ["node", "--max-semi-space-size=4", "--heap-growing-percent=60", "--no-allocation-site-pretenuring", "/app/dist/main.js"]
CMD ["run"]
