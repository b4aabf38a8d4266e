{# A model lives in the schema of its folder (staging, intermediate, marts), the same on every target. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
