{{ config(indexes=[{'columns': ['shown_date', 'domain', 'variant', 'model_version', 'rung'], 'unique': true}]) }}

with

impressions as (

    select * from {{ ref('fct_impressions') }}

),

funnel as (

    select
        {{ utc_date('shown_at') }} as shown_date,
        domain,
        variant,
        model_version,
        rung,
        count(distinct request_id) as requests,
        count(*) as impressions,
        count(*) filter (where is_clicked) as clicks,
        count(distinct request_id) filter (where is_clicked) as clicked_requests

    from impressions
    group by {{ utc_date('shown_at') }}, domain, variant, model_version, rung

)

select
    *,
    clicks::double precision / impressions as click_through_rate

from funnel
