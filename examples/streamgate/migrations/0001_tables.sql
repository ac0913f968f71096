-- Ids are UUIDv7 text, so that primary keys page in time order; times are microseconds since 1970, UTC.

CREATE TABLE users (
    id             TEXT PRIMARY KEY NOT NULL,
    wallet_address TEXT NOT NULL UNIQUE,
    display_name   TEXT NOT NULL,
    created_at     BIGINT NOT NULL
);

CREATE TABLE content (
    id            TEXT PRIMARY KEY NOT NULL,
    user_id       TEXT NOT NULL REFERENCES users (id),
    title         TEXT NOT NULL,
    description   TEXT NOT NULL,
    status        TEXT NOT NULL CHECK (status IN ('draft', 'processing', 'ready', 'failed')),
    kind          TEXT NOT NULL,
    visibility    TEXT NOT NULL CHECK (visibility IN ('public', 'gated')),
    body          TEXT NOT NULL,
    body_bytes    BIGINT NOT NULL,
    version       BIGINT NOT NULL DEFAULT 1,
    archive_state TEXT NOT NULL DEFAULT 'active',
    lease_owner   TEXT,
    lease_until   BIGINT,
    metadata      TEXT NOT NULL DEFAULT '{}',
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL
);

CREATE TABLE nft (
    id               TEXT PRIMARY KEY NOT NULL,
    contract_address TEXT NOT NULL,
    token_id         TEXT NOT NULL,
    owner_address    TEXT NOT NULL,
    chain_id         BIGINT NOT NULL,
    content_id       TEXT REFERENCES content (id) ON DELETE SET NULL,
    UNIQUE (chain_id, contract_address, token_id)
);

-- Quoted everywhere: SQLite reads the bare word as a keyword.
CREATE TABLE "transaction" (
    id         TEXT PRIMARY KEY NOT NULL,
    user_id    TEXT NOT NULL REFERENCES users (id),
    tx_hash    TEXT NOT NULL UNIQUE,
    status     TEXT NOT NULL CHECK (status IN ('pending', 'confirmed', 'failed')),
    value      TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE idempotency (
    key          TEXT PRIMARY KEY NOT NULL,
    request_hash TEXT NOT NULL,
    status       BIGINT NOT NULL,
    body         TEXT NOT NULL,
    expires_at   BIGINT NOT NULL
);
