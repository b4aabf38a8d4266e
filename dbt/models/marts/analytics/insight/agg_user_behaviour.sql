with

interactions as (

    select * from {{ ref('fct_interactions') }}

),

impressions as (

    select * from {{ ref('fct_impressions') }}

),

purchases as (

    select * from {{ ref('agg_purchase_days') }}

),

activity as (

    select
        domain,
        user_id,
        count(*) as events,
        count(*) filter (where event_type = 'view') as views,
        count(*) filter (where event_type = 'click') as clicks,
        count(*) filter (where event_type = 'purchase') as purchases,
        count(*) filter (where event_type = 'rate') as ratings,
        count(*) filter (where event_type = 'share') as shares,
        count(distinct item_id) as items,
        count(distinct occurred_date) as active_days,
        min(occurred_date) as first_date,
        max(occurred_date) as last_date

    from interactions
    group by domain, user_id

),

revenue as (

    select
        domain,
        user_id,
        sum(revenue) as revenue

    from purchases
    group by domain, user_id

),

response as (

    select
        domain,
        user_id,
        count(*) as impressions,
        count(*) filter (where is_clicked) as impressions_clicked

    from impressions
    group by domain, user_id

)

select
    activity.*,
    revenue.revenue,
    coalesce(response.impressions, 0) as impressions,
    coalesce(response.impressions_clicked, 0) as impressions_clicked

from activity
left join revenue using (domain, user_id)
left join response using (domain, user_id)
