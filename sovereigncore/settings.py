"""Every setting of the platform, and the only place that reads the environment.

What each variable means stands in `.env.example`. Bad values, unknown names in `.env` and weak
secrets stop the start here, before anything listens.
"""

from __future__ import annotations

import os
import re
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import quote, urlsplit

import django_stubs_ext
import environ
from corsheaders.defaults import default_headers

from sovereigncore.environment import Environment
from sovereigncore.listening import own_addresses
from sovereigncore.signing import parse_signing_keys

# Django's generic classes take their parameters in annotations only; this lets them take them in
# code, where strict types need them.
django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION = "0.1.0"

_env_file = Path(os.environ.get("ENV_FILE") or BASE_DIR / ".env")
env = Environment(os.environ, dotenv=_env_file)
if os.environ.get("ENV_FILE") and not _env_file.exists():
    env.problems.append(f"ENV_FILE: there is no {_env_file}")

# --- What runs where -------------------------------------------------------------------------
DEBUG = env.flag("DEBUG", default=False)
BIND = env.address("BIND", "127.0.0.1")
PORT = env.integer("PORT", 8528, at_least=1, at_most=65535)
DATA_DIR = Path(env.text("DATA_DIR", "data"))
if not DATA_DIR.is_absolute():
    DATA_DIR = BASE_DIR / DATA_DIR
PUBLIC_BASE_URL = env.url(
    "PUBLIC_BASE_URL",
    f"http://127.0.0.1:{PORT}",
    r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:\d{1,5})?",
    "scheme://host[:port] without a path",
)
_public = urlsplit(PUBLIC_BASE_URL)
SERVED_BY_TLS = _public.scheme == "https"
_public_host = _public.hostname or ""
if ":" in _public_host:
    _public_host = f"[{_public_host}]"  # as the Host header and Django write it
ALLOWED_HOSTS = env.words(
    "ALLOWED_HOSTS", ("127.0.0.1", "localhost", "[::1]", _public_host, *own_addresses(BIND))
)
API_DOCS = env.flag("API_DOCS", default=DEBUG)
REDIS_URL = env.url(
    "REDIS_URL", "", r"(rediss?|unix)://\S+", "redis://[user:password@]host:port/db"
)
WEB_CONCURRENCY = env.integer("WEB_CONCURRENCY", 1, at_least=1, at_most=64)

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
if DEBUG and BIND not in _LOOPBACK:
    env.problems.append("DEBUG: true only with BIND on loopback; it shows internals to callers")
if WEB_CONCURRENCY > 1 and not REDIS_URL:
    env.problems.append(
        "WEB_CONCURRENCY: more than one web process needs REDIS_URL, or limits would multiply"
    )

TRUSTED_PROXIES = []
for _proxy in env.words("TRUSTED_PROXIES"):
    try:
        TRUSTED_PROXIES.append(ip_network(_proxy, strict=False))
    except ValueError:
        env.problems.append(f"TRUSTED_PROXIES: {_proxy!r} is no address or network")

# --- Secrets ---------------------------------------------------------------------------------
_PUBLIC_SECRET = "debug-only-and-refused-when-DEBUG-is-false-0123456789"  # noqa: S105
_DEBUG_ONLY = _PUBLIC_SECRET if DEBUG else None
SECRET_KEY = env.secret("SECRET_KEY", min_length=50, stand_in=_DEBUG_ONLY)
AUDIT_KEY = env.secret("AUDIT_KEY", min_length=32, stand_in=_DEBUG_ONLY)
AUDIT_SIGNING_KEY = env.secret("AUDIT_SIGNING_KEY", min_length=64, stand_in="")
# A shorter one is on the list of problems already.
if re.fullmatch("|[0-9a-f]{64}|.{,63}", AUDIT_SIGNING_KEY) is None:
    env.problems.append("AUDIT_SIGNING_KEY: expected 64 hexadecimal digits in small letters")
METRICS_TOKEN = env.secret("METRICS_TOKEN", min_length=32, stand_in="")
BACKUP_KEY = env.secret("BACKUP_KEY", min_length=32, stand_in="")
JWT_ALGORITHM = env.choice("JWT_ALGORITHM", "HS256", ("HS256", "RS256"))
_jwt_keys = env.secret(
    "JWT_SIGNING_KEYS",
    min_length=0,  # each key of the list is judged by itself
    stand_in=f"debug:{_DEBUG_ONLY}" if DEBUG and JWT_ALGORITHM == "HS256" else None,
)
JWT_KEYS_TEXT, JWT_KEYS_FILE, DOTENV_FILE = _jwt_keys, env.file_of("JWT_SIGNING_KEYS"), _env_file
try:
    JWT_KEYS = parse_signing_keys(_jwt_keys, algorithm=JWT_ALGORITHM) if _jwt_keys else {}
except ValueError as _error:
    env.problems.append(f"JWT_SIGNING_KEYS: {_error}")

# --- Applications ----------------------------------------------------------------------------
INSTALLED_APPS = [
    "sovereigncore.apps.SovereignCoreConfig",
    "sovereigncore.apps.SovereignAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.forms",
    "corsheaders",
    "csp",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_ratelimit",
    "django_otp",
    "django_otp.plugins.otp_totp",
    "django_otp.plugins.otp_static",
    "monitoring",
    "accounts",
    "consciousness",
]
# Outermost first. The first two come before everything that may answer by itself, so that every
# response, a refused Host included, has a request id, a log line and a count.
MIDDLEWARE = [
    "sovereigncore.middleware.ForwardedHeadersMiddleware",
    "sovereigncore.middleware.RequestLogMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "sovereigncore.middleware.NoStoreMiddleware",
    "csp.middleware.CSPMiddleware",
    "django_permissions_policy.PermissionsPolicyMiddleware",
    "sovereigncore.console.StaticFilesMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "sovereigncore.ratelimit.RateLimitHeadersMiddleware",
    "sovereigncore.middleware.MethodNotAllowedMiddleware",
    "sovereigncore.middleware.ServiceErrorMiddleware",
    "sovereigncore.middleware.HostCheckMiddleware",
    "sovereigncore.middleware.BodyCheckMiddleware",
    "accounts.middleware.CallerAddressMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "sovereigncore.urls"
WSGI_APPLICATION = "sovereigncore.wsgi.application"
APPEND_SLASH = False  # API routes take both forms and never redirect
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
FORM_RENDERER = "django.forms.renderers.TemplatesSetting"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"

# --- Database and cache ----------------------------------------------------------------------
DATABASE_URL = env.url(
    "DATABASE_URL",
    f"sqlite:///{quote(str(DATA_DIR / 'db.sqlite3'))}",
    r"sqlite:///\S+|postgres(ql)?://\S+",
    "sqlite:///path or postgres://user:password@host:port/database",
)
WEB_THREADS = env.integer("WEB_THREADS", 100, at_least=4, at_most=1000)
_database = environ.Env.db_url_config(DATABASE_URL)
if _database["ENGINE"] == "django.db.backends.sqlite3":
    _database |= {
        "ENGINE": "sovereigncore.backends.sqlite3",
        # A thread keeps its connection: opening one costs more than most of our queries.
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            # Deferred transactions fail at their first write when another one came between;
            # immediate ones wait their turn.
            "transaction_mode": "IMMEDIATE",
            "timeout": 5,
            "init_command": (
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-512;"
                # Deleted text is overwritten, not only forgotten: people can have theirs erased.
                "PRAGMA secure_delete=ON;"
            ),
        },
        # Tests use threads, and threads cannot share an in-memory database.
        "TEST": {"NAME": str(DATA_DIR / "test.sqlite3")},
    }
else:
    # Here, so that nobody loads PostgreSQL's client who does not use it.
    from sovereigncore.database import BoundedConnection

    _database |= {
        "ENGINE": "sovereigncore.backends.postgresql",
        "OPTIONS": {
            # Never one connection a thread: threads wait on the engine most of the time, and
            # services close their connection before they do.
            "pool": {
                "min_size": 1,
                "max_size": 16,
                "timeout": 2,
                # The pauses between attempts double: after five minutes, which is the default, a
                # database that came back would be noticed minutes later.
                "reconnect_timeout": 4,
                "connection_class": BoundedConnection,
            },
            "connect_timeout": 2,
            "application_name": "sovereigncore",
            **_database.get("OPTIONS", {}),  # ?sslmode=… of the URL
        },
    }
DATABASES = {"default": _database}
# What web processes are called in pg_stat_activity; everything else there is "sovereigncore".
WEB_APPLICATION_NAME = "sovereigncore web"


def _cache(prefix: str, *, entries: int) -> dict[str, object]:
    if not REDIS_URL:
        return {
            "BACKEND": "sovereigncore.caches.LocMemCache",
            "LOCATION": prefix,
            "OPTIONS": {"MAX_ENTRIES": entries},
        }
    backends = {
        "ratelimit": "sovereigncore.ratelimit.FailoverRedisCache",
        "prompts": "sovereigncore.ratelimit.ForgetfulRedisCache",
    }
    return {
        "BACKEND": backends.get(prefix, "django_prometheus.cache.backends.redis.RedisCache"),
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": f"sovereigncore:{prefix}",
        "OPTIONS": {
            "SOCKET_CONNECT_TIMEOUT": 0.5,
            "SOCKET_TIMEOUT": 0.5,
            "CONNECTION_POOL_KWARGS": {
                # One for every thread; redis-py stops at 100 and calls that a failure of Redis.
                "max_connections": WEB_THREADS + 16,
                # Nor does it introduce itself, which our user of Redis may not.
                "driver_info": None,
            },
        },
    }


# Limits have a cache of their own: LocMem throws entries out when it is full, and a thrown-out
# counter is a limit that starts anew.
CACHES = {
    "default": _cache("default", entries=10_000),
    "ratelimit": _cache("ratelimit", entries=200_000),
    # Whose prompts an engine has read; see consciousness/own_prompts.py.
    "prompts": _cache("prompts", entries=10_000),
    "ratelimit_local": {
        "BACKEND": "sovereigncore.caches.LocMemCache",
        "LOCATION": "ratelimit_local",
        "OPTIONS": {"MAX_ENTRIES": 200_000},
    },
}

# --- Backups ---------------------------------------------------------------------------------
_backup_dir = env.text("BACKUP_DIR")
BACKUP_DIR = DATA_DIR / _backup_dir if _backup_dir else None  # an absolute one stays what it is
BACKUP_INTERVAL_HOURS = env.integer("BACKUP_INTERVAL_HOURS", 24, at_least=1, at_most=24 * 31)
BACKUP_KEEP = env.integer("BACKUP_KEEP", 14, at_least=1, at_most=1000)
if BACKUP_DIR and not BACKUP_KEY:
    env.problems.append("BACKUP_KEY: required with BACKUP_DIR; backups are never written in clear")

# --- Accounts and tokens ---------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["accounts.backends.CanonicalBackend"]
PASSWORD_HASHERS = [
    "accounts.hashing.CappedBCryptSHA256PasswordHasher",
    "accounts.hashing.CappedPBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "accounts.validators.CharacterClassesValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 8},
    },
    {"NAME": "accounts.validators.MaximumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator",
        "OPTIONS": {"user_attributes": ("username", "email", "full_name")},
    },
]
REGISTRATION_MODE = env.choice(
    "REGISTRATION_MODE", "verified", ("open", "verified", "invite", "closed")
)
ADMIN_REQUIRE_OTP = env.flag("ADMIN_REQUIRE_OTP", default=False)
OTP_TOTP_ISSUER = "SovereignCore"
ACCESS_TOKEN_MINUTES = env.integer("ACCESS_TOKEN_MINUTES", 30, at_least=1, at_most=24 * 60)
REFRESH_TOKEN_DAYS = env.integer("REFRESH_TOKEN_DAYS", 7, at_least=1, at_most=90)
JWT_AUDIENCE = "sovereigncore"
# What accounts/tokens.py does not set itself.
SIMPLE_JWT = {"ALGORITHM": JWT_ALGORITHM, "USER_ID_CLAIM": "sub"}

# --- Mail ------------------------------------------------------------------------------------
EMAIL_URL = env.url(
    "EMAIL_URL",
    "",
    r"smtp(\+tls|\+ssl)?://([^\s/?#@]+@)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?/?",
    "smtp://, smtp+tls:// or smtp+ssl://[user:password@]host[:port]",
)
OUTBOX = DATA_DIR / "outbox"
_mail = environ.Env.email_url_config(EMAIL_URL or "filemail://")
EMAIL_BACKEND = _mail["EMAIL_BACKEND"] if EMAIL_URL else "accounts.outbox.EmailBackend"
EMAIL_USE_TLS, EMAIL_USE_SSL = "EMAIL_USE_TLS" in _mail, "EMAIL_USE_SSL" in _mail
EMAIL_HOST = _mail["EMAIL_HOST"] or "localhost"
EMAIL_PORT = _mail["EMAIL_PORT"] or (587 if EMAIL_USE_TLS else 465 if EMAIL_USE_SSL else 25)
EMAIL_HOST_USER = _mail["EMAIL_HOST_USER"] or ""
EMAIL_HOST_PASSWORD = _mail["EMAIL_HOST_PASSWORD"] or ""
EMAIL_TIMEOUT = 10
_mail_host = _public.hostname or ""
DEFAULT_FROM_EMAIL = env.matching(
    "DEFAULT_FROM_EMAIL",
    # A number is no mail domain.
    f"SovereignCore <no-reply@{_mail_host if re.search('[g-z]', _mail_host) else 'localhost'}>",
    r'[^\s<>@,"]+@[A-Za-z0-9.-]+|[^<>@,"]+ <[^\s<>@,"]+@[A-Za-z0-9.-]+>',
    "an address, or Name <address>",
)

# --- Limits ----------------------------------------------------------------------------------
_RATE = (r"[1-9][0-9]{0,6}/([1-9][0-9]{0,3})?[smhd]", "a rate such as 100/m")
RATE_LIMIT_DEFAULT = env.matching("RATE_LIMIT_DEFAULT", "100/m", *_RATE)
RATE_LIMIT_AUTH = env.matching("RATE_LIMIT_AUTH", "5/m", *_RATE)
RATE_LIMIT_REGISTER = env.matching("RATE_LIMIT_REGISTER", "5/h", *_RATE)
RATE_LIMIT_RESET = env.matching("RATE_LIMIT_RESET", "3/h", *_RATE)
DAILY_TOKEN_QUOTA = env.integer("DAILY_TOKEN_QUOTA", 1_000_000, at_least=0, at_most=10**12)
RATELIMIT_USE_CACHE = "ratelimit"
RATELIMIT_FAILOVER_TTL_S = 3600
RATELIMIT_IPV6_MASK = 64  # one customer's network; a single host owns all of it
MAX_BODY_BYTES = 1024 * 1024
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES
DATA_UPLOAD_MAX_NUMBER_FIELDS = 200

# --- Engine ----------------------------------------------------------------------------------
ENGINE_PORT = env.integer("ENGINE_PORT", 8529, at_least=1, at_most=65535)
ENGINE_BIND = env.address("ENGINE_BIND", "127.0.0.1")
_BUNDLED_ENGINE_URL = f"http://127.0.0.1:{ENGINE_PORT}"
ENGINE_URL = env.url(
    "ENGINE_URL",
    _BUNDLED_ENGINE_URL,
    r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/[^\s?#@]*)?",
    "an http or https URL without a password",
).rstrip("/")
ENGINE_IS_LOCAL = ENGINE_URL == _BUNDLED_ENGINE_URL  # served by `manage.py runengine`
ENGINE_API_KEY = (
    env.secret("ENGINE_API_KEY", min_length=32, stand_in=_DEBUG_ONLY)
    if ENGINE_IS_LOCAL
    else env.text("ENGINE_API_KEY")  # somebody else's key has somebody else's rules
)
if ENGINE_IS_LOCAL and ENGINE_BIND not in _LOOPBACK and _PUBLIC_SECRET in ENGINE_API_KEY:
    env.problems.append(
        "ENGINE_BIND: beyond loopback only with an ENGINE_API_KEY of its own; the one of DEBUG is"
        " known to everybody"
    )
_model_path = env.text("MODEL_PATH")
MODEL_PATH = Path(_model_path) if _model_path else None
ENGINE_SLOTS = env.integer("ENGINE_SLOTS", 4, at_least=1, at_most=256)
ENGINE_CONNECT_TIMEOUT_S = env.number("ENGINE_CONNECT_TIMEOUT_S", 2, at_least=0.1, at_most=60)
ENGINE_FIRST_TOKEN_TIMEOUT_S = env.number(
    "ENGINE_FIRST_TOKEN_TIMEOUT_S", 60, at_least=0.1, at_most=3600
)
ENGINE_SILENCE_TIMEOUT_S = env.number("ENGINE_SILENCE_TIMEOUT_S", 30, at_least=0.1, at_most=3600)
ENGINE_TOTAL_TIMEOUT_S = env.number("ENGINE_TOTAL_TIMEOUT_S", 600, at_least=1, at_most=86400)
QUEUE_LIMIT = env.integer("QUEUE_LIMIT", 64, at_least=0, at_most=900)
QUEUE_TIMEOUT_S = env.number("QUEUE_TIMEOUT_S", 20, at_least=0, at_most=600)
CACHE_TTL_S = env.integer("CACHE_TTL_S", 3600, at_least=0, at_most=30 * 86400)
CACHE_MAX_ENTRIES = env.integer("CACHE_MAX_ENTRIES", 100_000, at_least=0, at_most=10**8)
RETENTION_DAYS = env.integer("RETENTION_DAYS", 30, at_least=1, at_most=3650)
AUDIT_RETENTION_DAYS = env.integer("AUDIT_RETENTION_DAYS", 0, at_least=0, at_most=36500)
AUDIT_DIR = DATA_DIR / "audit"
MEMORY_LIMIT = env.integer("MEMORY_LIMIT", 1000, at_least=0, at_most=100_000)
if WEB_THREADS < QUEUE_LIMIT + ENGINE_SLOTS + 32:
    env.problems.append(
        f"WEB_THREADS: {WEB_THREADS} is too few: waiting callers hold a thread each, so it must be"
        f" at least QUEUE_LIMIT + ENGINE_SLOTS + 32 = {QUEUE_LIMIT + ENGINE_SLOTS + 32}"
    )

# --- Awareness -------------------------------------------------------------------------------
GOVERNOR = {
    "cpu_conserve_percent": env.number(
        "GOVERNOR_CPU_CONSERVE_PERCENT", 85, at_least=1, at_most=101
    ),
    "memory_conserve_percent": env.number(
        "GOVERNOR_MEMORY_CONSERVE_PERCENT", 85, at_least=1, at_most=100
    ),
    "memory_survive_percent": env.number(
        "GOVERNOR_MEMORY_SURVIVE_PERCENT", 95, at_least=1, at_most=100
    ),
    "disk_conserve_percent": env.number(
        "GOVERNOR_DISK_CONSERVE_PERCENT", 90, at_least=1, at_most=100
    ),
    "disk_survive_percent": env.number(
        "GOVERNOR_DISK_SURVIVE_PERCENT", 97, at_least=1, at_most=100
    ),
    "temp_conserve_c": env.number("GOVERNOR_TEMP_CONSERVE_C", 80, at_least=1, at_most=150),
    "temp_survive_c": env.number("GOVERNOR_TEMP_SURVIVE_C", 92, at_least=1, at_most=150),
}

for _reading in ("memory", "disk"):
    if GOVERNOR[f"{_reading}_conserve_percent"] > GOVERNOR[f"{_reading}_survive_percent"]:
        env.problems.append(
            f"GOVERNOR_{_reading.upper()}_CONSERVE_PERCENT: above the one of SURVIVE"
        )
if GOVERNOR["temp_conserve_c"] > GOVERNOR["temp_survive_c"]:
    env.problems.append("GOVERNOR_TEMP_CONSERVE_C: above the one of SURVIVE")

GOVERNOR_CONSERVE_MAX_TOKENS = env.integer(
    "GOVERNOR_CONSERVE_MAX_TOKENS", 256, at_least=1, at_most=32768
)

# --- REST framework and its documentation ----------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.authentication.BearerAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["sovereigncore.api.HasScope"],
    "DEFAULT_THROTTLE_CLASSES": ["sovereigncore.ratelimit.DefaultRateLimit"],
    "DEFAULT_PARSER_CLASSES": ["sovereigncore.strict.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["sovereigncore.api.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "sovereigncore.api.NeverRefuse",
    "DEFAULT_PAGINATION_CLASS": "sovereigncore.api.CursorPagination",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "sovereigncore.api.handle_exception",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "SovereignCore",
    "DESCRIPTION": "Your own AI service, on your own machine.",
    "VERSION": VERSION,
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PUBLIC": True,
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "PREPROCESSING_HOOKS": ["sovereigncore.schema.without_trailing_slash"],
}

# --- What browsers are told ------------------------------------------------------------------
CORS_ALLOWED_ORIGINS = env.words("CORS_ALLOWED_ORIGINS")
CORS_URLS_REGEX = r"^/(api/v1|v1)/"
CORS_ALLOW_HEADERS = [
    *default_headers,
    "idempotency-key",
    # What OpenAI's client for JavaScript says of itself with each request.
    *(
        f"x-stainless-{name}"
        for name in (
            *("arch", "helper-method", "lang", "os", "package-version", "retry-count"),
            *("runtime", "runtime-version", "timeout"),
        )
    ),
]
CORS_EXPOSE_HEADERS = [
    *("X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy", "Idempotent-Replayed"),
    "x-should-retry",
    *(
        f"x-ratelimit-{name}-{unit}"
        for name in ("limit", "remaining", "reset")
        for unit in ("requests", "tokens")
    ),
]
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
        "base-uri": ["'none'"],
    }
}
PERMISSIONS_POLICY: dict[str, list[str]] = {
    feature: []
    for feature in (
        *("accelerometer", "camera", "display-capture", "geolocation", "gyroscope"),
        *("magnetometer", "microphone", "midi", "payment", "usb"),
    )
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if SERVED_BY_TLS else 0
SECURE_SSL_REDIRECT = SERVED_BY_TLS
# Probes and scrapers ask the process itself, behind the proxy.
SECURE_REDIRECT_EXEMPT = [r"^(health|live|ready|metrics)/?$"]
# ForwardedHeadersMiddleware removes the header unless a trusted proxy sent it.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SERVED_BY_TLS
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 3600
LOGIN_REDIRECT_URL = "/"
CSRF_FAILURE_VIEW = "sovereigncore.errors.csrf_failure"
CSRF_TRUSTED_ORIGINS = [PUBLIC_BASE_URL]
SILENCED_SYSTEM_CHECKS = [
    # Subdomains and the preload list bind a whole domain, which is its owner's decision.
    "security.W005",
    "security.W021",
    # `username_canonical` is unique, which is stricter than a unique `username`.
    "auth.W004",
    # In-process counting is exact with one web process, and more are refused above.
    *(() if REDIS_URL else ("django_ratelimit.E003", "django_ratelimit.W001")),
    # FailoverRedisCache is django-redis, whose increments are atomic.
    *(("django_ratelimit.W001",) if REDIS_URL else ()),
]

# --- Static files and logs -------------------------------------------------------------------
# Served from the packages themselves: collecting and compressing them cost a first start over a
# minute, for pages that a few people on one network open.
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
WHITENOISE_MAX_AGE = 3600
WHITENOISE_ALLOW_ALL_ORIGINS = False
# The console's address holds a digest of its files, so what is there never changes.
WHITENOISE_IMMUTABLE_FILE_TEST = r"^/static/console/[0-9a-f]{12}/"
# Set by gunicorn.conf.py for its workers, not by operators.
PROMETHEUS_MULTIPROC_DIR = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
# Of statements: most take less than the least that django-prometheus would tell apart.
PROMETHEUS_LATENCY_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, float("inf"))
LOG_LEVEL = env.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
LOGGING_CONFIG = "sovereigncore.logs.configure"
LOGGING = {
    "level": LOG_LEVEL,
    # Cut out of every line, should anything quote them.
    "secrets": [
        *(SECRET_KEY, AUDIT_KEY, BACKUP_KEY, METRICS_TOKEN, ENGINE_API_KEY),
        EMAIL_HOST_PASSWORD,
        *(urlsplit(_url).password or "" for _url in (DATABASE_URL, REDIS_URL, EMAIL_URL)),
        *(_key.partition(":")[2] for _key in _jwt_keys.split(",")),
    ],
}

if not DEBUG:
    for _name, _secret in (
        ("SECRET_KEY", SECRET_KEY),
        ("JWT_SIGNING_KEYS", _jwt_keys),
        ("AUDIT_KEY", AUDIT_KEY),
        ("ENGINE_API_KEY", ENGINE_API_KEY),
        ("BACKUP_KEY", BACKUP_KEY),
    ):
        if _PUBLIC_SECRET in _secret:
            env.problems.append(f"{_name}: everybody knows this one; it is for DEBUG only")
env.finish()
