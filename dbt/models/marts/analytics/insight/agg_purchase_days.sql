with

purchases as (

    select * from {{ ref('int_purchases_priced') }}

),

purchase_days as (

    select
        domain,
        user_id,
        occurred_date as purchase_date,
        count(*) as purchases,
        sum(revenue) as revenue

    from purchases
    group by domain, user_id, occurred_date

)

select * from purchase_days
