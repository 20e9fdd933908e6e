"""The providers: one entry each, and all that a provider of a known API needs (docs/providers.md)."""

from collections.abc import Mapping
from types import MappingProxyType

from ..expert import ProviderName, Tier
from .chat import EFFORT, ChatDialect
from .provider import Media, ProviderProfile, ProviderTool, TierModel

CHECKED_ON = "2026-11-22"
"""When the entries below were last compared with the SDK model lists, the price data and the vendors' pages."""

_COMMON = frozenset({"baseUrl", "headers"})
_EVERY_MEDIUM: frozenset[Media] = frozenset(
    {"image", "image-url", "pdf", "pdf-url", "text-file", "result-image", "result-pdf"}
)
_GPT: Mapping[Tier, TierModel] = {
    "low": TierModel("gpt-6-luna", 1_050_000),
    "middle": TierModel("gpt-6.1-sol", 1_050_000),
    "high": TierModel("gpt-6-astra", 1_050_000),
}
_GEMINI: Mapping[Tier, TierModel] = {
    "low": TierModel("gemini-3.5-flash-lite", 1_000_000),
    "middle": TierModel("gemini-3.8-flash", 1_000_000),
    "high": TierModel("gemini-4-argon", 1_048_576),
}
_FILE_SEARCH = ProviderTool(
    wire_name="file_search", options=("vectorStoreIds", "maxNumResults"), required=("vectorStoreIds",)
)
_MAPS = ProviderTool(wire_name="google_maps", options=("retrievalConfig",))
_NO_GIF = "Of images, it does not read GIF."

PROVIDERS: Mapping[ProviderName, ProviderProfile] = MappingProxyType(
    {
        "anthropic": ProviderProfile(
            title="Anthropic",
            api="messages",
            module="anthropic",
            tiers={
                "low": TierModel("claude-haiku-5-5", 1_000_000),
                "middle": TierModel("claude-sonnet-5-5", 1_000_000),
                "high": TierModel("claude-opus-5-5", 1_000_000),
            },
            credentials=("ANTHROPIC_API_KEY",),
            required_env=("ANTHROPIC_API_KEY",),
            base_url="https://api.anthropic.com",
            base_url_env="ANTHROPIC_BASE_URL",
            price_id="anthropic",
            reasoning="adaptive thinking with an effort, or a token budget for older models",
            caching="breakpoints",
            media=_EVERY_MEDIUM,
            provider_tools={
                "webSearch": ProviderTool(wire_name="web_search", options=("maxUses", "allowedDomains")),
                "webFetch": ProviderTool(wire_name="web_fetch", options=("maxUses",)),
                "codeExecution": ProviderTool(wire_name="code_execution"),
            },
            takes_provider_skills=True,
            limits=("Files that its code execution writes stay with Anthropic: the answer names their ids.",),
        ),
        "openai": ProviderProfile(
            title="OpenAI",
            api="responses",
            module="openai",
            tiers=_GPT,
            credentials=("OPENAI_API_KEY",),
            required_env=("OPENAI_API_KEY",),
            optional_env=("OPENAI_ORGANIZATION", "OPENAI_PROJECT"),
            setting_keys=_COMMON | {"organization", "project", "name"},
            base_url="https://api.openai.com/v1",
            base_url_env="OPENAI_BASE_URL",
            price_id="openai",
            reasoning="reasoning effort, with summaries",
            caching="automatic",
            media=_EVERY_MEDIUM,
            provider_tools={
                "webSearch": ProviderTool(wire_name="web_search", options=("allowedDomains",)),
                "fileSearch": _FILE_SEARCH,
                "codeInterpreter": ProviderTool(wire_name="code_interpreter"),
                "imageGeneration": ProviderTool(wire_name="image_generation"),
            },
        ),
        "google": ProviderProfile(
            title="Google",
            api="gemini",
            module="google",
            tiers=_GEMINI,
            credentials=("GOOGLE_GENERATIVE_AI_API_KEY",),
            required_env=("GOOGLE_GENERATIVE_AI_API_KEY",),
            base_url="https://generativelanguage.googleapis.com",
            base_url_env="GOOGLE_GENERATIVE_AI_BASE_URL",
            price_id="google",
            reasoning="thinking level, or a thinking budget for Gemini 2.5, with thoughts",
            caching="automatic",
            media=_EVERY_MEDIUM,
            provider_tools={
                "googleSearch": ProviderTool(wire_name="google_search"),
                "codeExecution": ProviderTool(wire_name="code_execution"),
                "urlContext": ProviderTool(wire_name="url_context"),
                "fileSearch": _FILE_SEARCH,
                "googleMaps": _MAPS,
            },
            limits=(_NO_GIF,),
        ),
        "fireworks": ProviderProfile(
            title="Fireworks",
            api="chat",
            module="compatible",
            tiers={
                "low": TierModel("accounts/fireworks/models/deepseek-v4p1-flash", 1_048_576),
                "middle": TierModel("accounts/fireworks/models/glm-5p3", 1_048_576),
                "high": TierModel("accounts/fireworks/models/kimi-k3", 1_040_000),
            },
            credentials=("FIREWORKS_API_KEY",),
            required_env=("FIREWORKS_API_KEY",),
            base_url="https://api.fireworks.ai/inference/v1",
            base_url_env="FIREWORKS_BASE_URL",
            price_id="fireworks",
            reasoning="`reasoning_effort`",
            caching="automatic",
            media=frozenset({"image", "image-url", "text-file", "result-image"}),
            # https://docs.fireworks.ai/guides/reasoning: a model that does not heed earlier reasoning ignores it.
            chat=ChatDialect(
                reasoning=EFFORT,
                always_reasoning=("*/glm-5p3*", "*/gpt-oss-*"),
                replayed="reasoning_content",
                affinity_header="x-session-affinity",
            ),
        ),
        "deepseek": ProviderProfile(
            title="DeepSeek",
            api="chat",
            module="compatible",
            tiers={
                "low": TierModel("deepseek-flash", 1_000_000),
                "high": TierModel("deepseek-v4-pro", 1_000_000),
            },
            credentials=("DEEPSEEK_API_KEY",),
            required_env=("DEEPSEEK_API_KEY",),
            base_url="https://api.deepseek.com",
            base_url_env="DEEPSEEK_BASE_URL",
            price_id="deepseek",
            reasoning="thinking on or off, with an effort",
            caching="automatic",
            media=frozenset({"image", "image-url", "text-file", "result-image"}),
            # https://api-docs.deepseek.com/guides/thinking_mode: a request is refused when the reasoning of an earlier
            # answer with calls, be it empty, is missing from it.
            chat=ChatDialect(
                reasoning={
                    "none": {"thinking": {"type": "disabled"}},
                    **{
                        level: {"thinking": {"type": "enabled"}, **EFFORT[level]} for level in ("low", "medium", "high")
                    },
                },
                replayed="reasoning_content",
                replays_empty=True,
            ),
            limits=("`deepseek-v4-pro` sees no images.",),
        ),
        "ollama": ProviderProfile(
            title="Ollama",
            api="chat",
            module="compatible",
            tiers={
                "low": TierModel("gpt-oss:20b", None),
                "high": TierModel("gpt-oss:120b", None),
            },
            base_url="http://localhost:11434",
            base_url_env="OLLAMA_BASE_URL",
            takes_http=True,
            reasoning="`reasoning_effort`",
            caching="none",
            media=frozenset({"image", "text-file", "result-image"}),
            # https://docs.ollama.com/api/openai-compatibility; gpt-oss takes levels only and cannot be switched off.
            chat=ChatDialect(
                version="/v1",
                reasoning=EFFORT,
                always_reasoning=("*gpt-oss*",),
                replayed="reasoning",
            ),
            limits=("Usage does not tell cached or reasoning tokens apart.",),
        ),
        # Azure addresses deployments; the tiers name what a deployment is called unless its owner chooses otherwise.
        "azure-openai": ProviderProfile(
            title="Azure OpenAI",
            api="responses",
            module="openai",
            tiers=_GPT,
            credentials=("AZURE_API_KEY",),
            required_env=("AZURE_API_KEY",),
            optional_env=("AZURE_RESOURCE_NAME", "AZURE_API_VERSION"),
            setting_keys=_COMMON | {"resourceName", "apiVersion", "useDeploymentBasedUrls"},
            base_url_env="AZURE_BASE_URL",
            price_id="azure",
            reasoning="reasoning effort, with summaries",
            caching="automatic",
            media=_EVERY_MEDIUM,
            provider_tools={
                "webSearchPreview": ProviderTool(wire_name="web_search_preview"),
                "fileSearch": _FILE_SEARCH,
                "codeInterpreter": ProviderTool(wire_name="code_interpreter"),
                "imageGeneration": ProviderTool(wire_name="image_generation"),
            },
            limits=("A deployment that is not called like its model gets no reasoning parameters.",),
        ),
        "amazon-bedrock": ProviderProfile(
            title="Amazon Bedrock",
            api="converse",
            module="bedrock",
            tiers={
                "low": TierModel("global.anthropic.claude-haiku-5-5", 1_000_000),
                "middle": TierModel("global.anthropic.claude-sonnet-5-5", 1_000_000),
                "high": TierModel("global.anthropic.claude-opus-5-5", 1_000_000),
            },
            credentials=("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"),
            optional_env=(
                *("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"),
                *("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_CA_BUNDLE", "AWS_EC2_METADATA_DISABLED"),
                *("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME"),
                *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
            ),
            setting_keys=frozenset({"region"}),
            base_url_env="AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
            price_id="aws",
            reasoning="as Anthropic for Claude; an effort for GPT and Nova 2; not sent to others",
            caching="cache points",
            media=frozenset({"image", "pdf", "text-file", "result-image", "result-pdf"}),
            limits=(
                "Reasoning is asked of Claude, GPT and Nova 2 models only.",
                "The prompt cache is marked for Claude and the first Nova models only.",
                "Models other than Claude and Nova are told of images and files in tool results, but do not see them.",
            ),
        ),
        "google-vertex": ProviderProfile(
            title="Google Vertex AI",
            api="gemini",
            module="google",
            tiers=_GEMINI,
            credentials=("GOOGLE_APPLICATION_CREDENTIALS",),
            optional_env=("GOOGLE_VERTEX_PROJECT", "GOOGLE_VERTEX_LOCATION", "GOOGLE_CLOUD_PROJECT"),
            setting_keys=_COMMON | {"project", "location"},
            base_url_env="GOOGLE_VERTEX_BASE_URL",
            price_id="google",
            reasoning="thinking level, or a thinking budget for Gemini 2.5, with thoughts",
            caching="automatic",
            media=_EVERY_MEDIUM,
            provider_tools={
                "codeExecution": ProviderTool(wire_name="code_execution"),
                "urlContext": ProviderTool(wire_name="url_context"),
                "googleSearch": ProviderTool(wire_name="google_search"),
                "enterpriseWebSearch": ProviderTool(wire_name="enterprise_web_search"),
                "googleMaps": _MAPS,
            },
            limits=(_NO_GIF,),
        ),
    }
)
