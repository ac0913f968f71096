-- The tables of SQLite's first migration. Ids compare byte by byte, as UUID text does in time order:
-- in the server's own language an index would sort them by its rules, at several times the cost.

CREATE TABLE users (
    id             TEXT COLLATE "C" PRIMARY KEY,
    wallet_address TEXT COLLATE "C" NOT NULL UNIQUE,
    display_name   TEXT NOT NULL,
    created_at     BIGINT NOT NULL
);

CREATE TABLE content (
    id            TEXT COLLATE "C" PRIMARY KEY,
    user_id       TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    title         TEXT NOT NULL,
    description   TEXT NOT NULL,
    status        TEXT COLLATE "C" NOT NULL CHECK (status IN ('draft', 'processing', 'ready', 'failed')),
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
    id               TEXT COLLATE "C" PRIMARY KEY,
    contract_address TEXT COLLATE "C" NOT NULL,
    token_id         TEXT COLLATE "C" NOT NULL,
    owner_address    TEXT COLLATE "C" NOT NULL,
    chain_id         BIGINT NOT NULL,
    content_id       TEXT COLLATE "C" REFERENCES content (id) ON DELETE SET NULL,
    UNIQUE (chain_id, contract_address, token_id)
);

CREATE TABLE "transaction" (
    id         TEXT COLLATE "C" PRIMARY KEY,
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    tx_hash    TEXT COLLATE "C" NOT NULL UNIQUE,
    status     TEXT COLLATE "C" NOT NULL CHECK (status IN ('pending', 'confirmed', 'failed')),
    value      TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE idempotency (
    key          TEXT COLLATE "C" PRIMARY KEY,
    request_hash TEXT NOT NULL,
    status       BIGINT NOT NULL,
    body         TEXT NOT NULL,
    expires_at   BIGINT NOT NULL
);
