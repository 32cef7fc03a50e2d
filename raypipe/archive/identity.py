"""Keys that tell series apart without telling whose they are.

In: UIDs or relative paths, and the secret key of an archive. Out: keyed hashes.
Does not know: files, manifests.
"""

import hashlib

from pydantic import SecretStr

from raypipe.errors import ConfigError

_MASK = str(SecretStr("hidden"))


def keyed_hash(text: str, key: SecretStr) -> str:
    """Keyed BLAKE2b of a text: 32 hexadecimal digits, the same on every machine.

    Raises:
        ConfigError: the key is the mask that a printed config shows instead of it.
    """
    secret = key.get_secret_value()
    if secret == _MASK:
        raise ConfigError(
            "index.hash_key holds the mask of a printed config: set it to the archive's own key"
        )
    digest_key = hashlib.blake2b(secret.encode(), digest_size=32).digest() if secret else b""
    return hashlib.blake2b(text.encode(), digest_size=16, key=digest_key).hexdigest()
