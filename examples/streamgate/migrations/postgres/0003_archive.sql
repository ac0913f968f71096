-- Cold storage. An object holds many frames; whoever commits a manifest and whoever removes an object meet
-- at the object's row here, so that neither can overlook the other.
CREATE TABLE archive_object (
    object_key TEXT COLLATE "C" PRIMARY KEY,
    -- 1: nobody may refer to it any more, because it is about to be removed.
    doomed     BIGINT NOT NULL DEFAULT 0
);

-- Where the payload of a content lies whose archive_state is 'archived'.
CREATE TABLE content_archive (
    content_id  TEXT COLLATE "C" PRIMARY KEY REFERENCES content (id) ON DELETE CASCADE,
    object_key  TEXT COLLATE "C" NOT NULL REFERENCES archive_object (object_key),
    "offset"    BIGINT NOT NULL,
    length      BIGINT NOT NULL,
    -- Of the payload before compression, hexadecimal.
    sha256      TEXT NOT NULL,
    codec       TEXT NOT NULL,
    version     BIGINT NOT NULL,
    archived_at BIGINT NOT NULL
);

CREATE INDEX idx_content_archive_object ON content_archive (object_key);
-- The oldest that still has its payload, however many are archived.
CREATE INDEX idx_content_not_archived ON content (created_at) WHERE archive_state <> 'archived';
-- The rows of one lease; nearly all rows have none.
CREATE INDEX idx_content_lease ON content (lease_owner) WHERE lease_owner IS NOT NULL;
